#include <unistd.h>

#include <iostream>

#include "cli/davit_csi_app.h"

int main(int argc, char** argv) {
  davit::cli::Io io{std::cout, std::cerr, ::isatty(STDERR_FILENO) == 1};
  return davit::cli::DavitCsiMain(std::vector<std::string>(argv + 1, argv + argc), io);
}
