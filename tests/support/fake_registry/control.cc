#include "tests/support/fake_registry/control.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "common/json/json.h"

namespace davit::testing {
namespace {

using nlohmann::json;
using Kind = Fault::Kind;

const std::map<std::string, Kind>& Kinds() {
  static const std::map<std::string, Kind> kinds = {
      {"status", Kind::kStatus},
      {"refuse", Kind::kRefuse},
      {"reset", Kind::kReset},
      {"short_body", Kind::kShortBody},
      {"wrong_range", Kind::kWrongRange},
      {"ignore_range", Kind::kIgnoreRange},
      {"html", Kind::kHtml},
      {"flip_byte", Kind::kFlipByte},
      {"garbage", Kind::kGarbage},
      {"wrong_digest", Kind::kWrongDigest},
      {"no_digest", Kind::kNoDigest},
      {"drip", Kind::kDrip},
      {"delay", Kind::kDelay},
      {"hang", Kind::kHang},
      {"redirect", Kind::kRedirect},
      {"expired_token", Kind::kExpiredToken},
  };
  return kinds;
}

// A field that is misspelled would be a test that cannot fail.
Result<Fault> ParseFault(const json& command) {
  Fault fault;
  for (const auto& [key, value] : command.items()) {
    if (key == "do") continue;
    const bool number = value.is_number_integer();
    if (key == "kind" && value.is_string() && Kinds().contains(value.get<std::string>())) {
      fault.kind = Kinds().at(value.get<std::string>());
    } else if (key == "path" && value.is_string()) {
      fault.path = value.get<std::string>();
    } else if (key == "method" && value.is_string()) {
      fault.method = value.get<std::string>();
    } else if (key == "location" && value.is_string()) {
      fault.location = value.get<std::string>();
    } else if (key == "skip" && number) {
      fault.skip = value.get<int>();
    } else if (key == "times" && number) {
      fault.times = value.get<int>();
    } else if (key == "status" && number) {
      fault.status = value.get<int>();
    } else if (key == "retry_after" && number) {
      fault.retry_after = value.get<int>();
    } else if (key == "delay_ms" && number) {
      fault.delay_ms = value.get<int>();
    } else if (key == "offset" && number) {
      fault.offset = value.get<std::uint64_t>();
    } else if (key == "bytes_per_second" && number) {
      fault.bytes_per_second = value.get<std::uint64_t>();
    } else {
      return Error(Code::kInvalidArgument, "bad field " + key + ": " + davit::json::Dump(value));
    }
  }
  return fault;
}

json Requests(const FakeRegistry& registry) {
  json list = json::array();
  for (const LoggedRequest& one : registry.requests()) {
    list.push_back({{"method", one.method},
                    {"path", one.path},
                    {"query", one.query},
                    {"range", one.range},
                    {"authorization", one.authorization},
                    {"status", one.status},
                    {"body_bytes", one.body_bytes},
                    {"seconds", one.seconds}});
  }
  return list;
}

Result<json> Execute(FakeRegistry& registry, const std::string& line) {
  DAVIT_TRY_ASSIGN(const json command, davit::json::Parse(line, "command"));
  DAVIT_TRY_ASSIGN(const std::string what, davit::json::NeedString(command, "do"));
  json reply = {{"ok", true}};
  if (what == "fault") {
    DAVIT_TRY_ASSIGN(const Fault fault, ParseFault(command));
    registry.SetFault(fault);
  } else if (what == "clear") {
    registry.ClearFaults();
  } else if (what == "pending") {
    reply["pending"] = registry.PendingFaults();
  } else if (what == "away") {
    DAVIT_TRY_ASSIGN(const auto away, davit::json::GetBool(command, "away"));
    registry.SetAway(away.value_or(true));
  } else if (what == "expire_tokens") {
    registry.ExpireTokens();
  } else if (what == "requests") {
    reply["requests"] = Requests(registry);
  } else if (what == "most_uploads") {
    reply["most_uploads"] = registry.counters().most_uploads;
  } else if (what == "forget_requests") {
    registry.ClearLog();
  } else {
    return Error(Code::kInvalidArgument, "unknown command " + what);
  }
  return reply;
}

}  // namespace

void RunControl(FakeRegistry& registry) {
  std::string line;
  while (std::getline(std::cin, line)) {
    const Result<json> reply = Execute(registry, line);
    std::cout << davit::json::Dump(reply.ok() ? *reply : json{{"error", reply.error().ToString()}})
              << std::endl;
  }
}

}  // namespace davit::testing
