#include "common/config/parse.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "common/config/units.h"
#include "common/json/json.h"
#include "common/toml/parse_toml.h"

namespace davit::config {
namespace {

Error Bad(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

std::string NumberText(double value) { return fmt::format("{}", value); }

Result<Item> TomlItem(std::string key, const toml::node& node) {
  Item item{.key = std::move(key),
            .where = fmt::format(" (line {})", node.source().begin.line),
            .text = {},
            .list = {}};
  if (const auto* array = node.as_array()) {
    item.is_list = true;
    for (const toml::node& element : *array) {
      const auto text = element.value_exact<std::string>();
      if (!text) return Bad(fmt::format("{}{}: lists hold texts only", item.key, item.where));
      item.list.push_back(*text);
    }
    return item;
  }
  if (const auto text = node.value_exact<std::string>()) {
    item.text = *text;
  } else if (const auto flag = node.value_exact<bool>()) {
    item.text = *flag ? "true" : "false";
  } else if (const auto number = node.value_exact<std::int64_t>()) {
    item.text = fmt::format("{}", *number);
  } else if (const auto real = node.value_exact<double>()) {
    item.text = NumberText(*real);
  } else {
    return Bad(
        fmt::format("{}{}: a text, number, true or false is expected", item.key, item.where));
  }
  return item;
}

Result<std::vector<Item>> TomlItems(std::string_view text) {
  DAVIT_TRY_ASSIGN(const toml::table root, ParseToml(text));
  std::vector<Item> items;
  for (const auto& [section, node] : root) {
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      DAVIT_TRY_ASSIGN(Item item, TomlItem(std::string(section.str()), node));
      items.push_back(std::move(item));
      continue;
    }
    if (table->empty()) {
      items.push_back(
          {.key = std::string(section.str()) + ".", .where = {}, .text = {}, .list = {}});
    }
    for (const auto& [field, value] : *table) {
      DAVIT_TRY_ASSIGN(Item item,
                       TomlItem(fmt::format("{}.{}", section.str(), field.str()), value));
      items.push_back(std::move(item));
    }
  }
  return items;
}

Result<Item> JsonItem(std::string key, const nlohmann::json& value) {
  Item item{.key = std::move(key), .where = {}, .text = {}, .list = {}};
  if (value.is_array()) {
    item.is_list = true;
    for (const nlohmann::json& element : value) {
      if (!element.is_string()) return Bad(fmt::format("{}: lists hold texts only", item.key));
      item.list.push_back(element.get<std::string>());
    }
  } else if (value.is_string()) {
    item.text = value.get<std::string>();
  } else if (value.is_boolean() || value.is_number_integer()) {
    item.text = value.dump();
  } else if (value.is_number()) {
    item.text = NumberText(value.get<double>());
  } else {
    return Bad(fmt::format("{}: a text, number, true or false is expected", item.key));
  }
  return item;
}

Result<std::vector<Item>> ParseJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json root, json::Parse(text, "configuration", 1U << 20));
  if (!root.is_object()) return Bad("the configuration is not a JSON object");
  std::vector<Item> items;
  for (const auto& [section, value] : root.items()) {
    if (!value.is_object()) {
      DAVIT_TRY_ASSIGN(Item item, JsonItem(section, value));
      items.push_back(std::move(item));
      continue;
    }
    if (value.empty()) items.push_back({.key = section + ".", .where = {}, .text = {}, .list = {}});
    for (const auto& [field, inner] : value.items()) {
      DAVIT_TRY_ASSIGN(Item item, JsonItem(section + "." + field, inner));
      items.push_back(std::move(item));
    }
  }
  return items;
}

Status CheckRange(const FieldInfo& field, double value, std::string_view text) {
  if (field.min == field.max || (value >= field.min && value <= field.max)) return {};
  const auto show = [&](double limit) {
    if (field.type == FieldType::kSize) return FormatSize(static_cast<std::uint64_t>(limit));
    if (field.type == FieldType::kDuration) {
      return FormatDuration(std::chrono::milliseconds(static_cast<std::int64_t>(limit)));
    }
    return NumberText(limit);
  };
  return Bad(fmt::format("{} is out of range: {} to {}", text, show(field.min), show(field.max)));
}

bool IsChoice(std::string_view choices, std::string_view text) {
  while (!choices.empty()) {
    const std::size_t bar = choices.find('|');
    if (choices.substr(0, bar) == text) return true;
    choices.remove_prefix(bar == std::string_view::npos ? choices.size() : bar + 1);
  }
  return false;
}

// One overload per type of field.
struct Setter {
  const FieldInfo& field;
  std::string_view text;

  Status operator()(std::string* out) const {
    if (text.find('\0') != std::string_view::npos) return Bad("it holds a NUL byte");
    if (field.type == FieldType::kPath && !text.empty() && text.front() != '/') {
      return Bad(fmt::format("\"{}\" is not an absolute path", text));
    }
    if (!field.choices.empty() && !IsChoice(field.choices, text)) {
      return Bad(fmt::format("\"{}\" is none of {}", text, field.choices));
    }
    *out = text;
    return {};
  }
  Status operator()(bool* out) const {
    if (text == "true" || text == "1" || text == "yes" || text == "on") {
      *out = true;
    } else if (text == "false" || text == "0" || text == "no" || text == "off") {
      *out = false;
    } else {
      return Bad(fmt::format("\"{}\" is neither true nor false", text));
    }
    return {};
  }
  Status operator()(std::int64_t* out) const {
    std::int64_t value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc{} || end != text.data() + text.size()) {
      return Bad(fmt::format("\"{}\" is not a whole number", text));
    }
    DAVIT_TRY(CheckRange(field, static_cast<double>(value), text));
    *out = value;
    return {};
  }
  Status operator()(double* out) const {
    double value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc{} || end != text.data() + text.size() || !(value == value)) {
      return Bad(fmt::format("\"{}\" is not a number", text));
    }
    DAVIT_TRY(CheckRange(field, value, text));
    *out = value;
    return {};
  }
  Status operator()(std::uint64_t* out) const {
    DAVIT_TRY_ASSIGN(const std::uint64_t value, ParseSize(text));
    DAVIT_TRY(CheckRange(field, static_cast<double>(value), text));
    *out = value;
    return {};
  }
  Status operator()(std::chrono::milliseconds* out) const {
    DAVIT_TRY_ASSIGN(const std::chrono::milliseconds value, ParseDuration(text));
    DAVIT_TRY(CheckRange(field, static_cast<double>(value.count()), text));
    *out = value;
    return {};
  }
  Status operator()(std::vector<std::string>* out) const {
    *out = SplitList(text);
    return {};
  }
};

}  // namespace

std::vector<std::string> SplitList(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) out.emplace_back(part);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  return out;
}

Result<std::vector<Item>> ParseFile(std::string_view text, std::string_view format) {
  return format == "json" ? ParseJson(text) : TomlItems(text);
}

Status SetFromText(const FieldInfo& field, std::string_view text, Config& config) {
  return std::visit(Setter{field, text}, field.ref(config));
}

Status SetFromItem(const FieldInfo& field, const Item& item, Config& config) {
  if (!item.is_list) return SetFromText(field, item.text, config);
  const FieldRef ref = field.ref(config);
  auto* const* list = std::get_if<std::vector<std::string>*>(&ref);
  if (list == nullptr) return Bad("it is a list, one value is expected");
  **list = item.list;
  return {};
}

}  // namespace davit::config
