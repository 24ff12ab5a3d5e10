// Whole requests to davitd's API: "METHOD PATH", lines of query "key=value", an empty line, a body.
// Every answer has a status that HTTP knows, and an error says what is wrong.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "common/json/json.h"
#include "daemon/core/routes.h"
#include "tests/support/fuzz/fuzz_input.h"
#include "tests/unit/daemon_core/fakes.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  davit::testing::FuzzInput input(data, size);
  davit::http::ServerRequest request;
  const std::string_view first = input.Line();
  const std::size_t space = first.find(' ');
  request.method = first.substr(0, space);
  if (space != std::string_view::npos) request.path = first.substr(space + 1);
  for (auto line = input.Line(); !line.empty(); line = input.Line()) {
    const std::size_t equals = line.find('=');
    request.query.emplace_back(line.substr(0, equals), equals == std::string_view::npos
                                                           ? std::string_view{}
                                                           : line.substr(equals + 1));
  }
  request.body = input.Rest();

  davit::testing::FakeService service;
  davit::daemon::WaitSlots slots(1);
  const davit::http::Response response = davit::daemon::Handle(service, slots, {}, request);
  if (response.status < 200 || response.status > 599) std::abort();
  if (response.status >= 400) {
    const auto body = davit::json::Parse(response.body, "answer");
    if (!body.ok() || !body->contains("code") || !body->contains("message")) std::abort();
  }
  if (!slots.Take()) std::abort();  // a slot was kept
  return 0;
}
