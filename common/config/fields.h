#pragma once
// The table of configuration fields. Internal to this module.

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/config/config.h"

namespace davit::config {

enum class FieldType { kString, kPath, kBool, kInt, kFloat, kSize, kDuration, kList };

/// A field of a Config object.
using FieldRef = std::variant<std::string*, bool*, std::int64_t*, double*, std::uint64_t*,
                              std::chrono::milliseconds*, std::vector<std::string>*>;

struct FieldInfo {
  std::string_view key;  // "section.field"
  FieldType type;
  FieldRef (*ref)(Config&);
  /// What the reference says the default is; empty: the value of a default Config.
  std::string_view default_text;
  double min = 0, max = 0;   // numbers (sizes in bytes, durations in ms); min == max: no limits
  std::string_view choices;  // strings: "a|b|c"; empty: anything
  std::string_view doc;      // one or two sentences
};

struct SectionInfo {
  std::string_view name, doc;
};

std::span<const SectionInfo> Sections();
std::span<const FieldInfo> Fields();
const FieldInfo* FindField(std::string_view key);
std::string_view TypeName(FieldType type);
/// The value as people would write it in the file.
std::string FormatValue(const FieldInfo& field, Config& config);

}  // namespace davit::config
