#pragma once
// How results are written: for people, or with `--output json` for programs.

#include <cstdint>
#include <string>
#include <string_view>

#include "cli/command.h"
#include "common/base/result.h"

namespace davit::cli {

/// `--output text|json` of every command that reports something. Files that a command writes are
/// named with `-o,--to`.
void AddOutputFormat(CLI::App& command, std::string& format);

/// "1.5 GiB"; for people.
std::string HumanBytes(std::uint64_t bytes);

/// Text that may hold names from images, which must not steer a terminal: control characters as
/// \xNN.
std::string Printable(std::string_view text);

/// "program: what and why", and below it the next step: the error's own hint, or what its kind
/// suggests.
void PrintError(Io& io, std::string_view program, const Error& error);

}  // namespace davit::cli
