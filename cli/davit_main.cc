#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string_view>

#include "cli/davit_app.h"

int main(int argc, char** argv) {
  const char* kind = std::getenv("TERM");
  const bool dumb = kind != nullptr && std::string_view(kind) == "dumb";
  davit::cli::Io io{std::cout, std::cerr, !dumb && ::isatty(STDERR_FILENO) == 1};
  return davit::cli::DavitMain(std::vector<std::string>(argv + 1, argv + argc), io);
}
