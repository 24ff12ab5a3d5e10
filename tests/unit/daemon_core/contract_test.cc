// docs/openapi.yaml and the code say the same: every route is in the document and the other way
// round, and every body that Handle() takes or gives fits its schema.

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "common/json/json.h"
#include "daemon/core/routes.h"
#include "fakes.h"

namespace davit::daemon {
namespace {

using Json = nlohmann::json;

// The document as JSON, by way of Python's YAML reader.
Json LoadDocument() {
  const char* source = std::getenv("DAVIT_SOURCE_DIR");
  if (source == nullptr) return {};
  const std::string command =
      "python3 -c 'import json,sys,yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)' "
      "'" +
      std::string(source) + "/docs/openapi.yaml'";
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  std::string text;
  std::array<char, 4096> buffer;
  for (std::size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    text.append(buffer.data(), n);
  }
  ::pclose(pipe);
  const auto parsed = json::Parse(text, "openapi.yaml");
  return parsed.ok() ? *parsed : Json();
}

// As much of JSON Schema as the document uses; anything else in it is reported, too.
class Validator {
 public:
  explicit Validator(const Json& document) : document_(document) {}

  const Json& Resolve(const Json& node) const {
    if (!node.contains("$ref")) return node;
    const std::string ref = node.at("$ref");
    return document_.at(Json::json_pointer(ref.substr(1)));
  }

  std::vector<std::string> Problems(const Json& schema, const Json& value) const {
    std::vector<std::string> out;
    Check(schema, value, "$", out);
    return out;
  }

 private:
  static bool HasType(const Json& value, const std::string& type) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_boolean();
    if (type == "integer") return value.is_number_integer();
    return false;
  }

  void Check(const Json& raw, const Json& value, const std::string& at,
             std::vector<std::string>& out) const {
    const Json& schema = Resolve(raw);
    static const std::set<std::string> kKnown{
        "type", "required", "properties", "additionalProperties", "items",
        "enum", "pattern",  "minimum",    "description",          "default"};
    for (const auto& [key, ignored] : schema.items()) {
      if (!kKnown.contains(key)) out.push_back(at + ": the test does not know " + key);
    }
    const std::string type = schema.at("type");
    if (!HasType(value, type)) {
      out.push_back(at + " is no " + type + ": " + value.dump());
      return;
    }
    if (schema.contains("enum") &&
        std::ranges::find(schema.at("enum"), value) == schema.at("enum").end()) {
      out.push_back(at + " has an unexpected value: " + value.dump());
    }
    if (schema.contains("pattern") &&
        !std::regex_search(value.get<std::string>(),
                           std::regex(schema.at("pattern").get<std::string>()))) {
      out.push_back(at + " does not match: " + value.dump());
    }
    if (schema.contains("minimum") && value < schema.at("minimum"))
      out.push_back(at + " too small");
    if (type == "array" && schema.contains("items")) {
      for (const Json& item : value) Check(schema.at("items"), item, at + "[]", out);
    }
    if (type == "object") CheckObject(schema, value, at, out);
  }

  void CheckObject(const Json& schema, const Json& value, const std::string& at,
                   std::vector<std::string>& out) const {
    for (const Json& name : schema.value("required", Json::array())) {
      if (!value.contains(name)) out.push_back(at + " lacks " + name.get<std::string>());
    }
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [name, member] : value.items()) {
      if (properties.contains(name)) {
        Check(properties.at(name), member, at + "." + name, out);
      } else if (!schema.value("additionalProperties", Json(true)).get<bool>()) {
        out.push_back(at + " must not have " + name);
      }
    }
  }

  const Json& document_;
};

class ContractTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(document.is_object()) << "docs/openapi.yaml cannot be read; is python3-yaml there?";
  }

  http::Response Ask(const std::string& method, const std::string& path, const std::string& body) {
    return Handle(service, slots, {}, {method, path, {}, {}, body});
  }

  // The response is documented for this status and fits the schema.
  void Expect(const std::string& method, const std::string& path, const std::string& real,
              const std::string& body, int status) {
    SCOPED_TRACE(method + " " + real + " " + body);
    const http::Response response = Ask(method, real, body);
    EXPECT_EQ(response.status, status) << response.body;
    std::string lower = method;
    std::ranges::transform(lower, lower.begin(),
                           [](char c) { return static_cast<char>(c | 0x20); });
    const Json& operation = document.at("paths").at(path).at(lower);
    const std::string code = std::to_string(response.status);
    ASSERT_TRUE(operation.at("responses").contains(code)) << code << " is not documented";
    const Validator validator(document);
    const Json& described = validator.Resolve(operation.at("responses").at(code));
    const std::string type(*response.headers.Get("Content-Type"));
    const Json& content = described.at("content");
    ASSERT_TRUE(content.contains(type.substr(0, type.find(';')))) << type;
    if (!content.contains("application/json")) return;
    const auto parsed = json::Parse(response.body, "reply");
    ASSERT_TRUE(parsed.ok()) << response.body;
    EXPECT_EQ(validator.Problems(content.at("application/json").at("schema"), *parsed),
              std::vector<std::string>());
    covered.insert(method + " " + path);
  }

  const Json document = LoadDocument();
  testing::FakeService service;
  WaitSlots slots{2};
  std::set<std::string> covered;
};

TEST_F(ContractTest, RoutesAndPathsAreTheSame) {
  std::set<std::string> documented;
  for (const auto& [path, methods] : document.at("paths").items()) {
    for (const auto& [method, operation] : methods.items()) {
      if (method == "parameters") continue;
      std::string upper = method;
      std::ranges::transform(upper, upper.begin(),
                             [](char c) { return static_cast<char>(c & ~0x20); });
      documented.insert(upper + " " + path);
    }
  }
  std::set<std::string> answered;
  for (const Route& route : Routes()) {
    answered.insert(std::string(route.method) + " " + std::string(route.path));
  }
  EXPECT_EQ(documented, answered);
}

TEST_F(ContractTest, EveryReplyFitsItsSchema) {
  const std::string mount = R"({"id":"m","source":"registry/app:v1","mountpoint":"/mnt/m"})";
  const std::string m = "/api/v1/mounts/{id}";
  Expect("GET", "/api/v1/daemon", "/api/v1/daemon", "", 200);
  Expect("PUT", "/api/v1/daemon", "/api/v1/daemon", R"({"log_level":"debug"})", 200);
  Expect("PUT", "/api/v1/daemon", "/api/v1/daemon", "{}", 400);
  Expect("GET", "/api/v1/mounts", "/api/v1/mounts", "", 200);
  Expect("POST", "/api/v1/mounts", "/api/v1/mounts", mount, 200);
  Expect("POST", "/api/v1/mounts", "/api/v1/mounts", "[", 400);
  Expect("GET", m, "/api/v1/mounts/m", "", 200);
  Expect("GET", m, "/api/v1/mounts/other", "", 404);
  Expect("DELETE", m, "/api/v1/mounts/m", "", 200);
  Expect("POST", m + "/prefetch", "/api/v1/mounts/m/prefetch", R"({"paths":["/a"]})", 202);
  Expect("POST", m + "/prefetch", "/api/v1/mounts/other/prefetch", "", 404);
  Expect("GET", "/api/v1/events", "/api/v1/events", "", 200);
  Expect("GET", "/api/v1/config", "/api/v1/config", "", 200);
  Expect("GET", "/api/v1/metrics", "/api/v1/metrics", "", 200);
  Expect("GET", "/api/v1/metrics/inflight", "/api/v1/metrics/inflight", "", 200);
  Expect("GET", "/api/v1/cache", "/api/v1/cache", "", 200);
  Expect("POST", "/api/v1/cache/evict", "/api/v1/cache/evict", R"({"bytes":4})", 200);
  Expect("POST", "/api/v1/cache/evict", "/api/v1/cache/evict", "{}", 400);
  Expect("GET", "/metrics", "/metrics", "", 200);
  Expect("GET", "/healthz", "/healthz", "", 200);
  for (const Route& route : Routes()) {
    if (route.path == "/metrics") continue;
    EXPECT_TRUE(covered.contains(std::string(route.method) + " " + std::string(route.path)))
        << route.method << " " << route.path << " is not tested here";
  }
}

TEST_F(ContractTest, FailedAndPendingMountsFitToo) {
  service.mount.state = "failed";
  service.mount.error = "why";
  service.mount.error_code = "unavailable";
  Expect("GET", "/api/v1/mounts/{id}", "/api/v1/mounts/m", "", 200);
  service.pending = true;
  Expect("POST", "/api/v1/mounts", "/api/v1/mounts", R"({"id":"m","source":"s","mountpoint":"/m"})",
         202);
  Expect("DELETE", "/api/v1/mounts/{id}", "/api/v1/mounts/m", "", 202);
  Expect("POST", "/api/v1/cache/evict", "/api/v1/cache/evict", R"({"bytes":1})", 202);
  service.pending = false;
  for (const Code code :
       {Code::kUnauthenticated, Code::kPermissionDenied, Code::kNotFound, Code::kAlreadyExists,
        Code::kFailedPrecondition, Code::kAborted, Code::kUnavailable, Code::kDeadlineExceeded}) {
    service.error = Error(code, "text");
    Expect("POST", "/api/v1/mounts", "/api/v1/mounts",
           R"({"id":"m","source":"s","mountpoint":"/m"})", api::HttpStatusOf(code));
  }
}

TEST_F(ContractTest, RequestsOfOurClientFitTheirSchemas) {
  const Validator validator(document);
  const Json& schemas = document.at("components").at("schemas");
  api::MountRequest request;
  request.id = "m";
  request.source = "s";
  request.mountpoint = "/m";
  request.platform = "linux/amd64";
  request.ready = api::Ready::kPrefetched;
  request.registry_auth = Secret("{}");
  EXPECT_EQ(validator.Problems(schemas.at("MountRequest"), *json::Parse(request.ToJson(), "")),
            std::vector<std::string>());
  // Everything that is documented is understood.
  for (const auto& [name, schema] : schemas.at("MountRequest").at("properties").items()) {
    Json body{{"id", "m"}, {"source", "s"}, {"mountpoint", "/m"}};
    if (schema.at("type") == "boolean") {
      body[name] = true;
    } else if (schema.contains("enum")) {
      body[name] = schema.at("enum").back();
    } else if (!body.contains(name)) {
      body[name] = "x";
    }
    EXPECT_TRUE(api::MountRequest::FromJson(body.dump()).ok()) << body;
  }
}

}  // namespace
}  // namespace davit::daemon
