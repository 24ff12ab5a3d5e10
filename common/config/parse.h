#pragma once
// Files and texts to values. Internal to this module; toml++ stays in parse.cc.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/fields.h"

namespace davit::config {

/// One "section.field = value" of a file.
struct Item {
  std::string key;
  std::string where;  // " (line 3)" or ""
  std::string text;   // scalars; as ParseValue reads them
  std::vector<std::string> list;
  bool is_list = false;
};

/// `format`: "toml" or "json". kInvalidArgument for anything that is not two levels of tables
/// with scalars and lists of texts.
Result<std::vector<Item>> ParseFile(std::string_view text, std::string_view format);

/// Sets a field from its text (environment, command line, file); lists are comma-separated.
Status SetFromText(const FieldInfo& field, std::string_view text, Config& config);
Status SetFromItem(const FieldInfo& field, const Item& item, Config& config);

/// Texts of a list field: separated by commas, blanks around them removed.
std::vector<std::string> SplitList(std::string_view text);

}  // namespace davit::config
