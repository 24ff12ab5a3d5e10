// What programs see of a mounted image.

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "tests/root/fuse/fuse_mount_fixture.h"

namespace davit::testing {
namespace {

struct Listed {
  std::vector<std::string> names;  // in order, with "." and ".."
  std::map<std::string, ino_t> inodes;
};

Listed List(const std::string& path) {
  Listed out;
  DIR* const dir = ::opendir(path.c_str());
  if (dir == nullptr) return out;
  while (const dirent* entry = ::readdir(dir)) {
    out.names.emplace_back(entry->d_name);
    out.inodes[entry->d_name] = entry->d_ino;
  }
  ::closedir(dir);
  return out;
}

struct stat Lstat(const std::string& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) st.st_ino = 0;
  return st;
}

class FuseReadTest : public FuseMountTest {};

TEST_F(FuseReadTest, FilesHaveTheirContent) {
  const std::string big = Pattern((5U << 20) + 123, 1);
  image_.File("hello", "hello world\n");
  image_.File("empty", "");
  image_.File("dir/big", big);
  image_.Extent("hole", 0, 300'000, true);
  Mount();
  EXPECT_EQ(Slurp(Path("hello")), "hello world\n");
  EXPECT_EQ(Slurp(Path("empty")), "");
  EXPECT_EQ(Slurp(Path("dir/big")), big);
  EXPECT_EQ(Slurp(Path("hole")), std::string(300'000, '\0'));
  EXPECT_EQ(Slurp(Path("dir")), "errno 21");
  EXPECT_TRUE(session().alive());
  EXPECT_EQ(session().stats().read_bytes, big.size() + 12 + 300'000);
}

TEST_F(FuseReadTest, PagesAreKeptOverOpens) {
  image_.File("file", Pattern(1U << 20, 2));
  Mount();
  ASSERT_EQ(Slurp(Path("file")).size(), 1U << 20);
  const auto first = session().stats();
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Slurp(Path("file")).size(), 1U << 20);
  const auto later = session().stats();
  EXPECT_EQ(later.reads, first.reads);
  // One open told the kernel that it need not ask.
  EXPECT_EQ(later.opens, first.opens);
  EXPECT_LE(later.opens, 1U);
}

TEST_F(FuseReadTest, ReadsAnywhere) {
  const std::string content = Pattern((3U << 20) + 77, 3);
  image_.File("pad", "x");
  image_.File("file", content);
  Mount();
  const UniqueFd fd(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd);
  std::srand(4);
  std::string buffer(700'000, '\0');
  for (int i = 0; i < 200; ++i) {
    const auto offset = static_cast<std::size_t>(std::rand()) % (content.size() + 5000);
    const auto size = static_cast<std::size_t>(std::rand()) % buffer.size();
    const ssize_t got = ::pread(fd.get(), buffer.data(), size, static_cast<off_t>(offset));
    const std::string expected = offset < content.size() ? content.substr(offset, size) : "";
    ASSERT_EQ(got, static_cast<ssize_t>(expected.size())) << offset << " " << size;
    ASSERT_EQ(buffer.substr(0, expected.size()), expected) << offset << " " << size;
  }
}

TEST_F(FuseReadTest, MapsAndReadsAroundThePageCache) {
  const std::string content = Pattern((2U << 20) + 99, 5);
  image_.File("file", content);
  Mount();
  const UniqueFd fd(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd);
  void* const memory = ::mmap(nullptr, content.size(), PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_EQ(std::memcmp(memory, content.data(), content.size()), 0);
  ::munmap(memory, content.size());
  const UniqueFd direct(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  ASSERT_TRUE(direct);
  void* aligned = nullptr;
  ASSERT_EQ(::posix_memalign(&aligned, 4096, 4U << 20), 0);
  EXPECT_EQ(::pread(direct.get(), aligned, 4U << 20, 0), static_cast<ssize_t>(content.size()));
  EXPECT_EQ(std::memcmp(aligned, content.data(), content.size()), 0);
  std::free(aligned);
}

TEST_F(FuseReadTest, AttributesAreTheImages) {
  const auto file = image_.File("file", "12345", 04751);
  image_.Owner("file", 70'000, 3'000'000'000U);
  image_.Node("null", S_IFCHR | 0666, static_cast<std::uint32_t>(makedev(1, 3)));
  image_.Node("disk", S_IFBLK | 0600, static_cast<std::uint32_t>(makedev(259, 0x12345)));
  image_.Node("pipe", S_IFIFO | 0644, 0);
  image_.Node("socket", S_IFSOCK | 0644, 0);
  image_.Dir("sticky", 01777);
  image_.HardLink("again", "file");
  Mount();
  const struct stat st = Lstat(Path("file"));
  EXPECT_EQ(st.st_ino, file);
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 04751));
  EXPECT_EQ(st.st_nlink, 2U);
  EXPECT_EQ(st.st_uid, 70'000U);
  EXPECT_EQ(st.st_gid, 3'000'000'000U);
  EXPECT_EQ(st.st_size, 5);
  EXPECT_EQ(st.st_mtim.tv_sec, 1'600'000'000);
  EXPECT_EQ(st.st_mtim.tv_nsec, 123'456'789);
  EXPECT_EQ(Lstat(Path("again")).st_ino, file);
  EXPECT_EQ(Lstat(Path("null")).st_rdev, makedev(1, 3));
  EXPECT_EQ(Lstat(Path("disk")).st_rdev, makedev(259, 0x12345));
  EXPECT_EQ(Lstat(Path("pipe")).st_mode, static_cast<mode_t>(S_IFIFO | 0644));
  EXPECT_EQ(Lstat(Path("socket")).st_mode, static_cast<mode_t>(S_IFSOCK | 0644));
  EXPECT_EQ(Lstat(Path("sticky")).st_mode, static_cast<mode_t>(S_IFDIR | 01777));
}

TEST_F(FuseReadTest, InodeOneBesideARootWithAnotherNumber) {
  image_.NextInode(1);
  image_.File("one", "I am inode 1");
  image_.NextInode(100);
  image_.File("dir/other", "other");
  Mount();
  EXPECT_EQ(Lstat(Path("")).st_ino, 36U);
  EXPECT_EQ(Lstat(Path("one")).st_ino, 1U);
  EXPECT_EQ(Slurp(Path("one")), "I am inode 1");
  EXPECT_EQ(Slurp(Path("dir/other")), "other");
  EXPECT_EQ(List(Path("")).inodes["one"], 1U);
}

TEST_F(FuseReadTest, InodeNumbersSurviveARemount) {
  image_.File("a/b", "x");
  Mount();
  const ino_t before = Lstat(Path("a/b")).st_ino;
  session_.reset();
  auto again = rafs::FuseSession::Start(filesystem_, options_);
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  session_ = *std::move(again);
  EXPECT_EQ(Lstat(Path("a/b")).st_ino, before);
}

TEST_F(FuseReadTest, ListsTenThousandEntries) {
  std::set<std::string> expected = {".", ".."};
  for (unsigned i = 0; i < 10'000; ++i) {
    const std::string name =
        "entry-" + std::to_string(i * 7919 % 10'000) + std::string(i % 50, 'x');
    image_.File("dir/" + name, "");
    expected.insert(name);
  }
  Mount();
  for (int pass = 0; pass < 3; ++pass) {
    const Listed listed = List(Path("dir"));
    EXPECT_EQ(listed.names.size(), expected.size());
    EXPECT_EQ(std::set<std::string>(listed.names.begin(), listed.names.end()), expected);
  }
  const auto listings = session().stats().readdirs;
  EXPECT_EQ(List(Path("dir")).names.size(), expected.size());
  EXPECT_EQ(session().stats().readdirs, listings) << "the kernel keeps listings";
  // seekdir comes back to the same place.
  DIR* const dir = ::opendir(Path("dir").c_str());
  ASSERT_NE(dir, nullptr);
  for (int i = 0; i < 5000; ++i) ASSERT_NE(::readdir(dir), nullptr);
  const long here = ::telldir(dir);
  const std::string next = ::readdir(dir)->d_name;
  ::rewinddir(dir);
  ASSERT_NE(::readdir(dir), nullptr);
  ::seekdir(dir, here);
  EXPECT_EQ(next, ::readdir(dir)->d_name);
  ::closedir(dir);
}

TEST_F(FuseReadTest, NamesThatSortBelowDotAndLongOnes) {
  const std::vector<std::string> names = {" ",
                                          "!",
                                          "#x",
                                          "%",
                                          "+",
                                          ",y",
                                          "-z",
                                          "-",
                                          "\x01",
                                          std::string(255, 'n'),
                                          "\xff\xfe not UTF-8",
                                          ".hidden",
                                          "...",
                                          "new\nline"};
  for (const std::string& name : names) image_.File("d/" + name, "content of " + name);
  Mount();
  const Listed listed = List(Path("d"));
  EXPECT_EQ(listed.names.size(), names.size() + 2);
  for (const std::string& name : names) {
    EXPECT_EQ(Slurp(Path("d/" + name)), "content of " + name);
    EXPECT_EQ(listed.inodes.count(name), 1U) << name;
  }
  EXPECT_EQ(Slurp(Path("d/" + std::string(256, 'n'))), "errno " + std::to_string(ENAMETOOLONG));
}

TEST_F(FuseReadTest, AttributesComeWithTheListing) {
  for (unsigned i = 0; i < 500; ++i)
    image_.File("d/f" + std::to_string(i), std::string(i % 9, 'x'));
  Mount();
  for (const std::string& name : List(Path("d")).names) Lstat(Path("d/" + name));
  const auto stats = session().stats();
  EXPECT_LE(stats.lookups, 1U) << "all attributes came with the listing";
}

TEST_F(FuseReadTest, MissingNamesAreRemembered) {
  image_.File("there", "x");
  Mount();
  EXPECT_EQ(Slurp(Path("missing")), "errno 2");
  const auto lookups = session().stats().lookups;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Slurp(Path("missing")), "errno 2");
  EXPECT_EQ(session().stats().lookups, lookups);
  EXPECT_EQ(Slurp(Path("there/below")), "errno " + std::to_string(ENOTDIR));
}

TEST_F(FuseReadTest, Symlinks) {
  image_.File("target", "found");
  image_.Symlink("link", "target");
  image_.Symlink("loop", "loop");
  image_.Symlink("long", std::string(4000, 'l'));
  Mount();
  char buffer[5000];
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(::readlink(Path("link").c_str(), buffer, sizeof(buffer)), 6);
    EXPECT_EQ(std::string(buffer, 6), "target");
  }
  EXPECT_EQ(Slurp(Path("link")), "found");
  EXPECT_EQ(Slurp(Path("loop")), "errno " + std::to_string(ELOOP));
  EXPECT_EQ(::readlink(Path("long").c_str(), buffer, sizeof(buffer)), 4000);
}

TEST_F(FuseReadTest, Xattrs) {
  const std::string binary("a\0b", 3);
  image_.File("file", "x");
  image_.File("plain", "x");
  image_.Xattr("file", "user.first", "one");
  image_.Xattr("file", "user.binary", binary);
  image_.Xattr("file", "user.empty", "");
  Mount();
  char buffer[256];
  const auto get = [&](const char* path, const char* name, std::size_t size) {
    const ssize_t got = ::lgetxattr(Path(path).c_str(), name, buffer, size);
    return got < 0 ? "errno " + std::to_string(errno)
                   : std::string(buffer, static_cast<std::size_t>(got));
  };
  EXPECT_EQ(get("file", "user.first", 256), "one");
  EXPECT_EQ(get("file", "user.empty", 256), "");
  EXPECT_EQ(get("file", "user.binary", 256), binary);
  EXPECT_EQ(get("file", "user.first", 2), "errno " + std::to_string(ERANGE));
  EXPECT_EQ(get("file", "user.none", 256), "errno " + std::to_string(ENODATA));
  EXPECT_EQ(get("plain", "user.first", 256), "errno " + std::to_string(ENODATA));
  EXPECT_EQ(::lgetxattr(Path("file").c_str(), "user.first", nullptr, 0), 3);
  const std::string names("user.first\0user.binary\0user.empty\0", 34);
  EXPECT_EQ(::llistxattr(Path("file").c_str(), nullptr, 0), static_cast<ssize_t>(names.size()));
  EXPECT_EQ(::llistxattr(Path("file").c_str(), buffer, sizeof(buffer)),
            static_cast<ssize_t>(names.size()));
  EXPECT_EQ(std::string(buffer, names.size()), names);
  EXPECT_EQ(::llistxattr(Path("file").c_str(), buffer, 5), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(::llistxattr(Path("plain").c_str(), buffer, sizeof(buffer)), 0);
}

TEST_F(FuseReadTest, AnImageWithoutXattrsIsAskedOnce) {
  for (int i = 0; i < 50; ++i) image_.File("f" + std::to_string(i), "x");
  Mount();
  char buffer[64];
  for (int i = 0; i < 50; ++i) {
    const std::string path = Path("f" + std::to_string(i));
    EXPECT_EQ(::lgetxattr(path.c_str(), "security.capability", buffer, sizeof(buffer)), -1);
    EXPECT_EQ(::llistxattr(path.c_str(), buffer, sizeof(buffer)), -1);
    EXPECT_EQ(::lgetxattr(path.c_str(), "system.posix_acl_access", buffer, sizeof(buffer)), -1);
  }
  EXPECT_LE(session().stats().xattrs, 3U);
}

// posix_acl_xattr: version 2; user::rw-, user:1234:rw-, group::---, mask::rw-, other::---.
std::string AclForUser1234() {
  struct [[gnu::packed]] Entry {
    std::uint16_t tag, perm;
    std::uint32_t id;
  };
  const std::uint32_t version = 2;
  const Entry entries[] = {
      {0x01, 6, ~0U}, {0x02, 6, 1234}, {0x04, 0, ~0U}, {0x10, 6, ~0U}, {0x20, 0, ~0U}};
  std::string out(reinterpret_cast<const char*>(&version), sizeof(version));
  out.append(reinterpret_cast<const char*>(entries), sizeof(entries));
  return out;
}

TEST_F(FuseReadTest, AclsAreEnforcedAndCached) {
  image_.File("secret", "for user 1234", 0660);
  image_.Xattr("secret", "system.posix_acl_access", AclForUser1234());
  Mount();
  ASSERT_EQ(::chmod(Path("").c_str(), 0755), -1);
  EXPECT_EQ(errno, EROFS);
  const auto read_as = [this](uid_t uid) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setgid(uid) != 0 || ::setuid(uid) != 0) ::_exit(9);
      ::_exit(Slurp(Path("secret")) == "for user 1234" ? 0 : 1);
    }
    int state = 0;
    ::waitpid(child, &state, 0);
    return WEXITSTATUS(state);
  };
  EXPECT_EQ(read_as(1234), 0);
  EXPECT_EQ(read_as(4321), 1);
  char buffer[256];
  const auto asked = session().stats().xattrs;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(::getxattr(Path("secret").c_str(), "system.posix_acl_access", buffer, 256), 44);
  }
  EXPECT_EQ(session().stats().xattrs, asked);
}

TEST_F(FuseReadTest, PermissionsAreChecked) {
  image_.File("private", "x", 0600);
  image_.File("public", "x", 0644);
  Mount();
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(4321) != 0 || ::setuid(4321) != 0) ::_exit(9);
    const bool ok = Slurp(Path("private")) == "errno 13" && Slurp(Path("public")) == "x";
    ::_exit(ok ? 0 : 1);
  }
  int state = 0;
  ::waitpid(child, &state, 0);
  EXPECT_EQ(WEXITSTATUS(state), 0);
  EXPECT_EQ(::open(Path("public").c_str(), O_RDWR | O_CLOEXEC), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::open(Path("new").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
}

TEST_F(FuseReadTest, StatfsTellsOfAFullReadOnlyDisk) {
  image_.File("file", std::string(100'000, 'x'));
  Mount();
  struct statvfs st{};
  ASSERT_EQ(::statvfs(Path("").c_str(), &st), 0);
  EXPECT_EQ(st.f_frsize, 4096U);
  EXPECT_EQ(st.f_blocks, 25U);
  EXPECT_EQ(st.f_bfree, 0U);
  EXPECT_EQ(st.f_files, 2U);
  EXPECT_EQ(st.f_namemax, 255U);
  EXPECT_TRUE(st.f_flag & ST_RDONLY);
  EXPECT_TRUE(st.f_flag & ST_NOSUID);
}

TEST_F(FuseReadTest, DamagedInodesAreErrorsAndHideNothing) {
  image_.File("d/good", "good");
  image_.File("d/bad", "bad");
  image_.Damage("d/bad");
  Mount();
  EXPECT_EQ(List(Path("d")).names.size(), 4U);
  EXPECT_EQ(Slurp(Path("d/good")), "good");
  EXPECT_EQ(Slurp(Path("d/bad")), "errno 5");
  EXPECT_EQ(List(Path("d")).names.size(), 4U);
  EXPECT_GE(session().stats().errors, 1U);
}

TEST_F(FuseReadTest, TenThousandOpenFiles) {
  image_.File("file", "x");
  Mount();
  std::vector<UniqueFd> open;
  for (int i = 0; i < 10'000; ++i) {
    open.emplace_back(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
    if (!open.back()) {
      ASSERT_EQ(errno, EMFILE) << i;  // this process' own limit
      break;
    }
  }
  EXPECT_LE(session().stats().opens, 1U);
}

}  // namespace
}  // namespace davit::testing
