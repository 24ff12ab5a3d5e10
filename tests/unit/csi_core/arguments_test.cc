// What a publish request may say.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "csi/core/publish_args.h"
#include "tests/unit/csi_core/node_fixture.h"

namespace davit::csi {
namespace {

using daemon::api::Ready;
using Attributes = std::map<std::string, std::string>;

TEST(VolumeSpec, DefaultsAndAllAttributes) {
  const auto plain = ParseVolumeSpec({{"image", "r/i:1"}}, false);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(*plain, VolumeSpec{.image = "r/i:1"});
  const auto full = ParseVolumeSpec({{"image", "r/i:1"},
                                     {"ready", "complete"},
                                     {"platform", "linux/arm64/v8"},
                                     {"plainHTTP", "true"},
                                     {"fill", "false"}},
                                    false);
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->ready, Ready::kComplete);
  EXPECT_EQ(full->platform, "linux/arm64/v8");
  EXPECT_TRUE(full->plain_http);
  EXPECT_FALSE(full->fill);
}

TEST(VolumeSpec, KubernetesKeysAreNoOptions) {
  const Attributes attributes = {
      {"image", "r/i:1"},
      {"csi.storage.k8s.io/pod.name", "p"},
      {"csi.storage.k8s.io/ephemeral", "true"},
      {"csi.storage.k8s.io/serviceAccount.tokens", std::string(9000, 't')},
      {"storage.kubernetes.io/csiProvisionerIdentity", "x"}};
  EXPECT_TRUE(ParseVolumeSpec(attributes, false).ok());
  EXPECT_FALSE(IsKubernetesKey("evilk8s.io/x"));
  EXPECT_FALSE(IsKubernetesKey("image"));
  EXPECT_TRUE(IsKubernetesKey("k8s.io/x"));
}

TEST(VolumeSpec, RefusesAndSaysWhatToDo) {
  struct Case {
    const char* what;
    Attributes attributes;
    const char* text;
  };
  const std::vector<Case> cases = {
      {"no image", {}, "add volumeAttributes"},
      {"empty image", {{"image", ""}}, "image is empty"},
      {"space", {{"image", "a b"}}, "spaces"},
      {"newline", {{"image", "a\nb"}}, "control characters"},
      {"local layout", {{"image", "oci:/etc:x"}}, "--allow-oci-layouts"},
      {"typo", {{"image", "r/i"}, {"imgae", "x"}}, "did you mean \"image\"?"},
      {"case", {{"image", "r/i"}, {"plainhttp", "true"}}, "did you mean \"plainHTTP\"?"},
      {"foreign", {{"image", "r/i"}, {"somethingElse", "x"}}, "known attributes: image, ready"},
      {"long key", {{"image", "r/i"}, {std::string(3000, 'x'), "x"}}, "unknown volume attribute"},
      {"fake domain", {{"image", "r/i"}, {"k8s.io.evil/x", "x"}}, "unknown volume attribute"},
      {"ready", {{"image", "r/i"}, {"ready", "soon"}}, "mounted, prefetched or complete"},
      {"bool", {{"image", "r/i"}, {"fill", "yes"}}, "neither true nor false"},
      {"bool case", {{"image", "r/i"}, {"plainHTTP", "True"}}, "in quotes"},
      {"platform", {{"image", "r/i"}, {"platform", "arm64"}}, "linux/arm64"},
      {"platform parts", {{"image", "r/i"}, {"platform", "a/b/c/d"}}, "no platform"},
      {"platform empty part", {{"image", "r/i"}, {"platform", "linux//v8"}}, "no platform"},
      {"platform end", {{"image", "r/i"}, {"platform", "linux/"}}, "no platform"},
      {"platform path", {{"image", "r/i"}, {"platform", "linux/a b"}}, "no platform"},
      {"size", {{"image", std::string(4097, 'i')}}, "more than 4096"},
  };
  for (const Case& c : cases) {
    const auto spec = ParseVolumeSpec(c.attributes, false);
    ASSERT_FALSE(spec.ok()) << c.what;
    EXPECT_EQ(spec.error().code(), Code::kInvalidArgument) << c.what;
    EXPECT_NE(spec.error().ToString().find(c.text), std::string::npos)
        << c.what << ": " << spec.error().ToString();
    EXPECT_LT(spec.error().ToString().size(), 400U) << c.what;
  }
  EXPECT_TRUE(ParseVolumeSpec({{"image", "oci:/images/a:x"}}, true).ok());
}

TEST(VolumeSpec, MountIdDependsOnEveryOption) {
  const VolumeSpec base{.image = "r/i:1"};
  std::set<std::string> ids = {MountIdOf("v", base), MountIdOf("w", base)};
  for (const auto& change : std::vector<std::function<void(VolumeSpec&)>>{
           [](VolumeSpec& s) { s.image = "r/i:2"; },
           [](VolumeSpec& s) { s.ready = Ready::kComplete; },
           [](VolumeSpec& s) { s.platform = "linux/arm64"; },
           [](VolumeSpec& s) { s.plain_http = true; }, [](VolumeSpec& s) { s.fill = false; }}) {
    VolumeSpec changed = base;
    change(changed);
    ids.insert(MountIdOf("v", changed));
  }
  EXPECT_EQ(ids.size(), 7U);
  // What stands where one field ends must not matter.
  EXPECT_NE(MountIdOf("va", VolumeSpec{.image = "b"}), MountIdOf("v", VolumeSpec{.image = "ab"}));
  EXPECT_EQ(MountIdOf("v", base), MountIdOf("v", base));
  EXPECT_EQ(MountIdOf("v", base).size(), 36U);
}

TEST(NormalPath, Table) {
  EXPECT_EQ(*NormalPath("/a//b/", "p"), "/a/b");
  EXPECT_EQ(*NormalPath("/a/..b/...", "p"), "/a/..b/...");
  for (const std::string& bad :
       {std::string(), std::string("a"), std::string("./a"), std::string("/"), std::string("//"),
        std::string("/a/../b"), std::string("/a/."), std::string("/a/./b"), std::string("/.."),
        "/" + std::string(5000, 'a'), std::string("/a\0b", 4)}) {
    const auto path = NormalPath(bad, "target_path");
    ASSERT_FALSE(path.ok()) << bad;
    EXPECT_EQ(path.error().code(), Code::kInvalidArgument);
    EXPECT_NE(path.error().message().find("target_path"), std::string::npos);
  }
}

TEST(CheckPublish, EveryAccessModeOfAMountIsAccepted) {
  for (const AccessMode mode :
       {AccessMode::kSingleNodeWriter, AccessMode::kSingleNodeReaderOnly,
        AccessMode::kMultiNodeReaderOnly, AccessMode::kMultiNodeSingleWriter,
        AccessMode::kMultiNodeMultiWriter, AccessMode::kSingleNodeSingleWriter,
        AccessMode::kSingleNodeMultiWriter}) {
    for (const bool read_only : {false, true}) {
      PublishRequest request = RequestFor("v", "/pods/a", mode);
      request.read_only = read_only;
      const auto args = CheckPublish(request, false);
      ASSERT_TRUE(args.ok()) << AccessModeName(mode);
      EXPECT_EQ(args->mode, mode);
      EXPECT_EQ(*ParseAccessMode(AccessModeName(mode)), mode);
    }
  }
}

TEST(CheckPublish, RefusesWrongArguments) {
  struct Case {
    const char* what;
    std::function<void(PublishRequest&)> change;
    const char* text;
  };
  const std::vector<Case> cases = {
      {"no volume", [](auto& r) { r.volume_id = ""; }, "volume_id is missing"},
      {"long volume", [](auto& r) { r.volume_id = std::string(129, 'v'); }, "129 bytes"},
      {"control", [](auto& r) { r.volume_id = "a\nb"; }, "control characters"},
      {"no capability", [](auto& r) { r.capability.present = false; }, "volume_capability"},
      {"block", [](auto& r) { r.capability.block = true; }, "volumeMode: Filesystem"},
      {"no mode", [](auto& r) { r.capability.mode = AccessMode::kUnknown; }, "access_mode"},
      {"fs type", [](auto& r) { r.capability.fs_type = "ext4"; }, "leave fsType out"},
      {"group", [](auto& r) { r.capability.volume_mount_group = "1000"; }, "fsGroupPolicy"},
      {"rw", [](auto& r) { r.capability.mount_flags = {"rw"}; }, "mount option \"rw\""},
      {"context", [](auto& r) { r.capability.mount_flags = {"context=secret"}; },
       "mount option \"context\""},
  };
  for (const Case& c : cases) {
    PublishRequest request = RequestFor("v", "/pods/a");
    c.change(request);
    const auto args = CheckPublish(request, false);
    ASSERT_FALSE(args.ok()) << c.what;
    EXPECT_EQ(args.error().code(), Code::kInvalidArgument) << c.what;
    EXPECT_NE(args.error().ToString().find(c.text), std::string::npos)
        << c.what << ": " << args.error().ToString();
    EXPECT_EQ(args.error().ToString().find("=secret"), std::string::npos);
  }
  PublishRequest longest = RequestFor(std::string(128, 'v'), "/pods/a");
  longest.capability.mount_flags = {"noexec", "ro"};
  const auto args = CheckPublish(longest, false);
  ASSERT_TRUE(args.ok());
  EXPECT_TRUE(BindOptionsOf(*args).noexec);
  EXPECT_FALSE(BindOptionsOf(*args).noatime);
}

}  // namespace
}  // namespace davit::csi
