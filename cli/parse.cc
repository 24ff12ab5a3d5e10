#include "cli/parse.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>

#include "cli/output.h"
#include "common/base/nearest.h"

namespace davit::cli {
namespace {

constexpr std::size_t kLongestShown = 128;

/// The command that was named, as far as it is known: "davit cache ls".
struct Named {
  const CLI::App* app;
  std::string words;
};

Named NamedCommand(const CLI::App& app) {
  Named named{&app, app.get_name()};
  while (true) {
    const auto parsed = named.app->get_subcommands();
    if (parsed.empty()) return named;
    named.app = parsed.front();
    named.words += " " + named.app->get_name();
  }
}

void AppendOptions(const CLI::App& app, std::vector<std::string>& out) {
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) out.push_back("--" + name);
  }
}

/// What was left over and is nothing that the command knows.
std::string Unknown(const CLI::App& app, const Named& named, std::string word) {
  const bool option = word.starts_with('-');
  if (option) word = word.substr(0, word.find('='));
  std::vector<std::string> known;
  if (option) {
    AppendOptions(*named.app, known);
    if (named.app != &app) AppendOptions(app, known);
  } else {
    for (const CLI::App* command : named.app->get_subcommands({})) {
      known.push_back(command->get_name());
    }
  }
  const std::string shown = Printable(word.substr(0, kLongestShown));
  const char* what = option          ? "unknown option"
                     : known.empty() ? "unexpected argument"
                                     : "unknown command";
  std::string text = fmt::format("{}: {} '{}'", named.words, what, shown);
  if (const auto nearest = Nearest(word, known)) {
    text += fmt::format("\n  did you mean '{}'? See {} --help", *nearest, named.words);
  } else {
    text += fmt::format("\n  see {} --help", named.words);
  }
  return text;
}

std::string Explain(const CLI::App& app, const CLI::ParseError& error) {
  const Named named = NamedCommand(app);
  // A word too many explains a missing one: it was mistyped.
  const auto code = static_cast<CLI::ExitCodes>(error.get_exit_code());
  if (code == CLI::ExitCodes::ExtrasError || code == CLI::ExitCodes::RequiredError) {
    std::vector<std::string> words = app.remaining(true);
    std::erase(words, "--");
    // An unknown option leaves its value over too.
    const auto option =
        std::ranges::find_if(words, [](const auto& w) { return w.starts_with('-'); });
    if (option != words.end()) return Unknown(app, named, *option);
    if (!words.empty()) return Unknown(app, named, words.front());
  }
  return fmt::format("{}: {}\n  see {} --help", named.words, Printable(error.what()), named.words);
}

}  // namespace

std::optional<int> ParseArguments(CLI::App& app, const std::vector<std::string>& args, Io& io) {
  std::vector<std::string> reversed(args.rbegin(), args.rend());  // what CLI11 wants
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // help or version
      app.exit(error, io.out, io.err);
      return kExitOk;
    }
    io.err << Explain(app, error) << "\n";
    return kExitUsage;
  }
  return std::nullopt;
}

}  // namespace davit::cli
