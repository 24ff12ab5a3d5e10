#include "common/json/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace davit::json {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

/// Builds the document and keeps the parser's error text; refuses deep nesting before the
/// recursion of later users (dump, destructor) could become a problem.
class LimitedBuilder : public nlohmann::detail::json_sax_dom_parser<json> {
  using Base = nlohmann::detail::json_sax_dom_parser<json>;

 public:
  explicit LimitedBuilder(json& document) : Base(document, false) {}
  bool start_object(std::size_t n) { return Enter() && Base::start_object(n); }
  bool start_array(std::size_t n) { return Enter() && Base::start_array(n); }
  bool end_object() { return Leave() && Base::end_object(); }
  bool end_array() { return Leave() && Base::end_array(); }
  template <class E>
  bool parse_error(std::size_t position, const std::string& token, const E& error) {
    problem = fmt::format("at byte {}", position);
    return Base::parse_error(position, token, error);
  }
  std::string problem;

 private:
  bool Enter() {
    if (++depth_ <= kMaxDepth) return true;
    problem = fmt::format("nested deeper than {} levels", kMaxDepth);
    return false;
  }
  bool Leave() {
    --depth_;
    return true;
  }
  int depth_ = 0;
};

Error WrongType(std::string_view key, std::string_view wanted) {
  return Error(Code::kInvalidArgument, fmt::format("'{}' must be {}", key, wanted));
}

/// The member unless it is missing or null; an error when `object` is no object.
Result<const json*> Member(const json& object, std::string_view key) {
  if (!object.is_object())
    return Error(Code::kInvalidArgument,
                 fmt::format("'{}' is looked for in something that is no object", key));
  const auto it = object.find(std::string(key));
  if (it == object.end() || it->is_null()) return static_cast<const json*>(nullptr);
  return &*it;
}

}  // namespace

Result<json> Parse(std::string_view text, std::string_view what, std::size_t limit) {
  if (text.size() > limit) {
    return Error(Code::kInvalidArgument, fmt::format("{} has {} bytes, more than the {} allowed",
                                                     what, text.size(), limit));
  }
  json root;
  LimitedBuilder builder(root);
  if (!json::sax_parse(text, &builder)) {
    return Error(Code::kInvalidArgument,
                 fmt::format("{} is not valid JSON ({})", what,
                             builder.problem.empty() ? "syntax" : builder.problem));
  }
  return root;
}

Result<std::optional<std::string>> GetString(const json& object, std::string_view key) {
  DAVIT_TRY_ASSIGN(const json* member, Member(object, key));
  if (member == nullptr) return std::optional<std::string>();
  if (!member->is_string()) return WrongType(key, "a string");
  return std::optional<std::string>(member->get_ref<const std::string&>());
}

Result<std::optional<std::uint64_t>> GetUint(const json& object, std::string_view key) {
  DAVIT_TRY_ASSIGN(const json* member, Member(object, key));
  if (member == nullptr) return std::optional<std::uint64_t>();
  if (!member->is_number_integer() ||
      (!member->is_number_unsigned() && member->get<std::int64_t>() < 0)) {
    return WrongType(key, "a whole number of 0 or more");
  }
  return std::optional<std::uint64_t>(member->get<std::uint64_t>());
}

Result<std::optional<bool>> GetBool(const json& object, std::string_view key) {
  DAVIT_TRY_ASSIGN(const json* member, Member(object, key));
  if (member == nullptr) return std::optional<bool>();
  if (!member->is_boolean()) return WrongType(key, "true or false");
  return std::optional<bool>(member->get<bool>());
}

Result<std::string> NeedString(const json& object, std::string_view key) {
  DAVIT_TRY_ASSIGN(std::optional<std::string> value, GetString(object, key));
  if (!value) return Error(Code::kInvalidArgument, fmt::format("'{}' is missing", key));
  return *std::move(value);
}

Result<std::uint64_t> NeedUint(const json& object, std::string_view key) {
  DAVIT_TRY_ASSIGN(const std::optional<std::uint64_t> value, GetUint(object, key));
  if (!value) return Error(Code::kInvalidArgument, fmt::format("'{}' is missing", key));
  return *value;
}

Result<const json*> GetObject(const json& object, std::string_view key) {
  DAVIT_TRY_ASSIGN(const json* member, Member(object, key));
  if (member != nullptr && !member->is_object()) return WrongType(key, "an object");
  return member;
}

Result<const json*> GetArray(const json& object, std::string_view key) {
  DAVIT_TRY_ASSIGN(const json* member, Member(object, key));
  if (member != nullptr && !member->is_array()) return WrongType(key, "a list");
  return member;
}

std::string Dump(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

}  // namespace davit::json
