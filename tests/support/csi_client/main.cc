// davit-csi-client: calls a CSI driver's node socket as kubelet does, and prints the replies as
// JSON. For tests, the demo and debugging.
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "proto/csi.grpc.pb.h"

namespace {

namespace v1 = csi::v1;

struct Options {
  std::string endpoint = "unix:///csi/csi.sock";
  std::string authority = "localhost", request_id;
  double timeout = 120;
  std::string volume_id, path, image, mode = "SINGLE_NODE_WRITER";
  std::vector<std::string> attributes, secrets, secret_files;
  bool read_only = false;
};

int Print(const grpc::Status& status, const google::protobuf::Message& reply) {
  static const std::map<grpc::StatusCode, std::string> names = {
      {grpc::CANCELLED, "CANCELLED"},
      {grpc::UNKNOWN, "UNKNOWN"},
      {grpc::INVALID_ARGUMENT, "INVALID_ARGUMENT"},
      {grpc::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"},
      {grpc::NOT_FOUND, "NOT_FOUND"},
      {grpc::ALREADY_EXISTS, "ALREADY_EXISTS"},
      {grpc::PERMISSION_DENIED, "PERMISSION_DENIED"},
      {grpc::UNAUTHENTICATED, "UNAUTHENTICATED"},
      {grpc::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"},
      {grpc::FAILED_PRECONDITION, "FAILED_PRECONDITION"},
      {grpc::ABORTED, "ABORTED"},
      {grpc::OUT_OF_RANGE, "OUT_OF_RANGE"},
      {grpc::UNIMPLEMENTED, "UNIMPLEMENTED"},
      {grpc::INTERNAL, "INTERNAL"},
      {grpc::UNAVAILABLE, "UNAVAILABLE"},
      {grpc::DATA_LOSS, "DATA_LOSS"}};
  if (!status.ok()) {
    const auto name = names.find(status.error_code());
    std::cerr << (name == names.end() ? "UNKNOWN" : name->second) << ": " << status.error_message()
              << "\n";
    return 1;
  }
  std::string text;
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  print.always_print_primitive_fields = true;
  if (!google::protobuf::util::MessageToJsonString(reply, &text, print).ok()) return 1;
  std::cout << text << "\n";
  return 0;
}

bool Split(const std::string& pair, std::string& key, std::string& value) {
  const std::size_t equals = pair.find('=');
  if (equals == std::string::npos || equals == 0) {
    std::cerr << "not KEY=VALUE: " << pair << "\n";
    return false;
  }
  key = pair.substr(0, equals);
  value = pair.substr(equals + 1);
  return true;
}

class Client {
 public:
  explicit Client(const Options& options) : options_(options) {
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, options.authority);
    // Both "unix:///p" and "unix:/p" name the path /p.
    std::string target = options.endpoint;
    if (target.starts_with("/")) target.insert(0, "unix:");
    channel_ = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
    identity_ = v1::Identity::NewStub(channel_);
    node_ = v1::Node::NewStub(channel_);
  }

  template <class Stub, class Request, class Reply>
  int Do(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*), Stub& stub,
         const Request& request) {
    grpc::ClientContext context;
    context.set_wait_for_ready(false);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(static_cast<int>(options_.timeout * 1000)));
    if (!options_.request_id.empty()) context.AddMetadata("x-request-id", options_.request_id);
    Reply reply;
    const grpc::Status status = (stub.*method)(&context, request, &reply);
    return Print(status, reply);
  }

  int Info() {
    const int plugin =
        Do(&v1::Identity::Stub::GetPluginInfo, *identity_, v1::GetPluginInfoRequest());
    const int node = Do(&v1::Node::Stub::NodeGetInfo, *node_, v1::NodeGetInfoRequest());
    return plugin != 0 ? plugin : node;
  }
  int Capabilities() {
    const int plugin = Do(&v1::Identity::Stub::GetPluginCapabilities, *identity_,
                          v1::GetPluginCapabilitiesRequest());
    const int node =
        Do(&v1::Node::Stub::NodeGetCapabilities, *node_, v1::NodeGetCapabilitiesRequest());
    return plugin != 0 ? plugin : node;
  }
  int Probe() { return Do(&v1::Identity::Stub::Probe, *identity_, v1::ProbeRequest()); }

  int Publish() {
    v1::NodePublishVolumeRequest request;
    request.set_volume_id(options_.volume_id);
    request.set_target_path(options_.path);
    request.set_readonly(options_.read_only);
    auto* capability = request.mutable_volume_capability();
    capability->mutable_mount();
    v1::VolumeCapability::AccessMode::Mode mode;
    if (!v1::VolumeCapability::AccessMode::Mode_Parse(options_.mode, &mode)) {
      std::cerr << "unknown access mode " << options_.mode << "\n";
      return 2;
    }
    capability->mutable_access_mode()->set_mode(mode);
    if (!options_.image.empty()) (*request.mutable_volume_context())["image"] = options_.image;
    std::string key, value;
    for (const std::string& pair : options_.attributes) {
      if (!Split(pair, key, value)) return 2;
      (*request.mutable_volume_context())[key] = value;
    }
    for (const std::string& pair : options_.secrets) {
      if (!Split(pair, key, value)) return 2;
      (*request.mutable_secrets())[key] = value;
    }
    for (const std::string& pair : options_.secret_files) {
      if (!Split(pair, key, value)) return 2;
      std::ifstream file(value, std::ios::binary);
      if (!file) {
        std::cerr << "cannot read " << value << "\n";
        return 2;
      }
      (*request.mutable_secrets())[key] =
          std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return Do(&v1::Node::Stub::NodePublishVolume, *node_, request);
  }
  int Unpublish() {
    v1::NodeUnpublishVolumeRequest request;
    request.set_volume_id(options_.volume_id);
    request.set_target_path(options_.path);
    return Do(&v1::Node::Stub::NodeUnpublishVolume, *node_, request);
  }
  int Stats() {
    v1::NodeGetVolumeStatsRequest request;
    request.set_volume_id(options_.volume_id);
    request.set_volume_path(options_.path);
    return Do(&v1::Node::Stub::NodeGetVolumeStats, *node_, request);
  }
  int Health() {
    v1::NodeGetVolumeHealthRequest request;
    request.set_volume_id(options_.volume_id);
    request.set_volume_publish_path(options_.path);
    return Do(&v1::Node::Stub::NodeGetVolumeHealth, *node_, request);
  }

 private:
  const Options& options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Identity::Stub> identity_;
  std::unique_ptr<v1::Node::Stub> node_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Calls a CSI driver's node socket as kubelet does."};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--endpoint", options.endpoint, "The driver's socket")->capture_default_str();
  app.add_option("--timeout", options.timeout, "Seconds for each call")->capture_default_str();
  app.add_option("--authority", options.authority, "HTTP/2 :authority")->capture_default_str();
  app.add_option("--request-id", options.request_id, "Metadata x-request-id of each call");
  auto* info = app.add_subcommand("info", "Driver and node");
  auto* probe = app.add_subcommand("probe", "Whether the driver is ready");
  auto* capabilities = app.add_subcommand("capabilities", "What the driver can do");
  auto* publish = app.add_subcommand("publish", "Show an image at a directory");
  auto* unpublish = app.add_subcommand("unpublish", "Take it away again");
  auto* stats = app.add_subcommand("stats", "Size of a published volume");
  auto* health = app.add_subcommand("health", "Whether a published volume works");
  for (auto* command : {publish, unpublish, stats, health}) {
    command->add_option("--volume-id", options.volume_id)->required();
    command->add_option("--target", options.path, "Target path")->required();
  }
  publish->add_option("--image", options.image, "The volume attribute image");
  publish->add_option("--attribute", options.attributes, "KEY=VALUE, any volume attribute");
  publish->add_option("--secret", options.secrets, "KEY=VALUE");
  publish->add_option("--secret-file", options.secret_files, "KEY=FILE");
  publish->add_option("--access-mode", options.mode)->capture_default_str();
  publish->add_flag("--read-only", options.read_only);
  CLI11_PARSE(app, argc, argv);

  Client client(options);
  if (*info) return client.Info();
  if (*probe) return client.Probe();
  if (*capabilities) return client.Capabilities();
  if (*publish) return client.Publish();
  if (*unpublish) return client.Unpublish();
  if (*stats) return client.Stats();
  if (*health) return client.Health();
  return 2;
}
