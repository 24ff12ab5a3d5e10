#include <unistd.h>

#include <iostream>

#include "cli/davitd_app.h"

int main(int argc, char** argv) {
  davit::cli::Io io{std::cout, std::cerr, ::isatty(STDERR_FILENO) == 1};
  return davit::cli::DavitdMain(std::vector<std::string>(argv + 1, argv + argc), io);
}
