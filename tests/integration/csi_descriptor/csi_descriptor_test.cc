// The project's csi.proto against the official one: tests/interop/csi_descriptor holds the
// official descriptor as text, and the Go program that makes the text.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <sstream>
#include <string>

#include "common/base/fd.h"
#include "proto/csi.pb.h"

namespace davit::csi {
namespace {

namespace pb = google::protobuf;

// One line per thing, as main.go writes them.
class Dump {
 public:
  explicit Dump(const pb::FileDescriptor& file) {
    Add("package " + file.package() + " " + pb::FileDescriptor::SyntaxName(file.syntax()));
    for (int i = 0; i < file.enum_type_count(); ++i) Enum(*file.enum_type(i));
    for (int i = 0; i < file.message_type_count(); ++i) Message(*file.message_type(i));
    for (int i = 0; i < file.service_count(); ++i) Service(*file.service(i));
  }
  const std::set<std::string>& lines() const { return lines_; }

 private:
  void Add(const std::string& line) { lines_.insert(line); }

  static std::string TypeOf(const pb::FieldDescriptor& field) {
    if (field.message_type() != nullptr) return field.message_type()->full_name();
    if (field.enum_type() != nullptr) return field.enum_type()->full_name();
    return field.type_name();
  }
  void Enum(const pb::EnumDescriptor& type) {
    Add("enum " + type.full_name());
    for (int i = 0; i < type.value_count(); ++i) {
      Add("value " + type.full_name() + "." + type.value(i)->name() + " " +
          std::to_string(type.value(i)->number()));
    }
  }
  void Message(const pb::Descriptor& message) {
    Add("message " + message.full_name());
    for (int i = 0; i < message.field_count(); ++i) {
      const pb::FieldDescriptor& field = *message.field(i);
      const pb::OneofDescriptor* oneof = field.containing_oneof();
      Add("field " + field.full_name() + " " + std::to_string(field.number()) + " " +
          (field.is_repeated() ? "repeated" : "optional") + " " + TypeOf(field) + " " +
          (oneof == nullptr ? "-" : oneof->name()));
    }
    for (int i = 0; i < message.enum_type_count(); ++i) Enum(*message.enum_type(i));
    for (int i = 0; i < message.nested_type_count(); ++i) Message(*message.nested_type(i));
  }
  void Service(const pb::ServiceDescriptor& service) {
    Add("service " + service.full_name());
    for (int i = 0; i < service.method_count(); ++i) {
      const pb::MethodDescriptor& method = *service.method(i);
      Add("method " + method.full_name() + " " + method.input_type()->full_name() + " " +
          method.output_type()->full_name() + " " + (method.client_streaming() ? "true" : "false") +
          " " + (method.server_streaming() ? "true" : "false"));
    }
  }

  std::set<std::string> lines_;
};

std::set<std::string> Lines(const std::string& text) {
  std::set<std::string> out;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) out.insert(line);
  return out;
}

std::string Folder() {
  const char* source = std::getenv("DAVIT_SOURCE_DIR");
  return std::string(source == nullptr ? "." : source) + "/tests/interop/csi_descriptor";
}

// "a.b.Message" of "field a.b.Message.name 1 ..." and of "value a.b.Enum.NAME 0".
std::string OwnerOf(const std::string& line) {
  const std::size_t space = line.find(' ');
  const std::string name = line.substr(space + 1, line.find(' ', space + 1) - space - 1);
  return name.substr(0, name.find_last_of('.'));
}

void CompareWith(const std::set<std::string>& official) {
  const Dump own(*::csi::v1::ProbeRequest::descriptor()->file());
  ASSERT_GT(official.size(), 500U);
  ASSERT_GT(own.lines().size(), 250U);
  // Everything of ours is official ...
  for (const std::string& line : own.lines()) EXPECT_TRUE(official.contains(line)) << line;
  // ... and the messages and enums that we have are whole. Services may have fewer methods, which
  // gRPC answers with UNIMPLEMENTED; Identity and Node have them all.
  for (const std::string& line : official) {
    const bool member = line.starts_with("field ") || line.starts_with("value ");
    const std::string owner = OwnerOf(line);
    const bool ours =
        own.lines().contains("message " + owner) || own.lines().contains("enum " + owner);
    const bool whole_service =
        line.starts_with("method csi.v1.Identity.") || line.starts_with("method csi.v1.Node.");
    if ((member && ours) || whole_service) {
      EXPECT_TRUE(own.lines().contains(line)) << "missing: " << line;
    }
  }
}

TEST(CsiDescriptor, EqualsTheOfficialOne) {
  const auto text = ReadFile(Folder() + "/official.txt");
  ASSERT_TRUE(text.ok()) << text.error().ToString();
  CompareWith(Lines(*text));
}

TEST(CsiDescriptor, OfficialTextIsThatOfTheGoPackage) {
  if (std::system("command -v go >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "there is no Go here; compared with the kept text only";
  }
  const std::string command = "cd '" + Folder() + "' && go run . 2>&1";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"),
                                                   [](FILE* f) { return ::pclose(f); });
  ASSERT_TRUE(pipe);
  std::string text;
  std::array<char, 4096> buffer{};
  for (std::size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) > 0;) {
    text.append(buffer.data(), n);
  }
  if (text.find("package csi.v1") == std::string::npos) {
    // No network, or a Go that is older than the module wants.
    GTEST_SKIP() << "the Go program could not be built: " << text.substr(0, 500);
  }
  while (text.starts_with("go: ")) text.erase(0, text.find('\n') + 1);  // "go: downloading ..."
  EXPECT_EQ(text, *ReadFile(Folder() + "/official.txt"));
  CompareWith(Lines(text));
}

}  // namespace
}  // namespace davit::csi
