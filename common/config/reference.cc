#include <fmt/format.h>

#include "common/config/config.h"
#include "common/config/fields.h"
#include "common/config/units.h"

namespace davit::config {
namespace {

constexpr std::string_view kIntroduction = R"(# Configuration

This page is generated from the table in `common/config/fields.cc` (`davitd --config-reference`);
a test keeps both equal.

All binaries of davit read one configuration: `davitd` and `davit-csi`, the commands of `davit` that
speak to the daemon, and those that name an image (`convert`, `copy`, `check`, `inspect`, `unpack`,
`stat`), which use its section `registry`. Commands on local files alone (`build`, `merge`,
`extract`) have nothing to set. Without any file they run with the defaults below.
Where a value is given several times, the last of these wins:

1. the built-in default,
2. the configuration file: `--config FILE`, else `$DAVIT_CONFIG`, else (without root)
   `$XDG_CONFIG_HOME/davit/davit.toml`, else `/etc/davit/davit.toml`; TOML or JSON, by its ending,
3. the environment: `cache.budget_bytes` is `DAVIT_CACHE_BUDGET_BYTES`; lists are separated by
   commas,
4. the command line: `--set cache.budget_bytes=20GiB` (`davitd`) and the options that stand for a
   key. Two of `davit`'s add to the list instead: `--ca-file` and `--plain-http-host`.

A file may say `version = 1`. An unknown key, a value of the wrong kind or out of its range is
refused at the start, with the nearest known key. `davitd --check-config` checks and prints the
effective configuration and starts nothing.

Sizes: `4096`, `512MiB`, `20GiB` (powers of 1024), `500MB` (powers of 1000). Durations: `500ms`,
`90s`, `1m30s`, `2h`.

```toml
version = 1

[cache]
budget_bytes = "40GiB"

[registry]
hosts_dir = "/etc/containerd/certs.d"
```
)";

std::string DefaultText(const FieldInfo& field, Config& defaults) {
  if (!field.default_text.empty()) return std::string(field.default_text);
  const std::string value = FormatValue(field, defaults);
  return value.empty() ? "empty" : "`" + value + "`";
}

std::string LimitsText(const FieldInfo& field) {
  if (!field.choices.empty()) {
    std::string out;
    for (char c : field.choices) {
      if (c == '|') {
        out += ", ";
      } else {
        out += c;
      }
    }
    return out;
  }
  if (field.min == field.max) return "";
  if (field.type == FieldType::kSize) {
    return fmt::format("{} to {}", FormatSize(static_cast<std::uint64_t>(field.min)),
                       FormatSize(static_cast<std::uint64_t>(field.max)));
  }
  if (field.type == FieldType::kDuration) {
    return fmt::format(
        "{} to {}", FormatDuration(std::chrono::milliseconds(static_cast<std::int64_t>(field.min))),
        FormatDuration(std::chrono::milliseconds(static_cast<std::int64_t>(field.max))));
  }
  return fmt::format("{} to {}", field.min, field.max);
}

}  // namespace

std::string ReferenceMarkdown() {
  Config defaults;
  std::string out(kIntroduction);
  for (const SectionInfo& section : Sections()) {
    out += fmt::format(
        "\n## [{}]\n\n{}\n\n| Key | Type | Default | Allowed | Meaning |\n"
        "|---|---|---|---|---|\n",
        section.name, section.doc);
    const std::string prefix = std::string(section.name) + ".";
    for (const FieldInfo& field : Fields()) {
      if (!field.key.starts_with(prefix)) continue;
      out += fmt::format("| `{}` | {} | {} | {} | {} |\n", field.key.substr(prefix.size()),
                         TypeName(field.type), DefaultText(field, defaults), LimitsText(field),
                         field.doc);
    }
  }
  return out;
}

}  // namespace davit::config
