// A session that serves a fake kernel over a socket: no mount, no root.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <thread>

#include "rafs/fuse/session.h"
#include "tests/support/fake_fuse/fake_fuse.h"
#include "tests/support/fake_image/fake_image.h"

namespace davit::rafs {
namespace {

using testing::FakeFuse;
using testing::FakeImage;
using testing::FakeReply;

class ProtocolTest : public ::testing::Test {
 protected:
  void Serve() {
    auto session =
        FuseSession::StartOnSocket(image_.TakeFilesystem(), options_, kernel_.TakeServerEnd());
    ASSERT_TRUE(session.ok()) << session.error().ToString();
    session_ = *std::move(session);
    init_ = kernel_.Init();
    ASSERT_EQ(init_.major, 7U);
  }

  fuse_entry_out Lookup(std::uint64_t parent, const std::string& name, int error = 0) {
    const FakeReply reply = kernel_.Call(FUSE_LOOKUP, parent, FakeFuse::Name(name));
    EXPECT_EQ(reply.error, error) << name;
    return reply.As<fuse_entry_out>();
  }

  FakeImage image_;
  FakeFuse kernel_;
  FuseOptions options_;
  std::unique_ptr<FuseSession> session_;
  fuse_init_out init_{};
};

TEST_F(ProtocolTest, NegotiatesWhatAnImmutableImageCanUse) {
  image_.Xattr("", "user.x", "y");
  Serve();
  for (const unsigned flag : std::initializer_list<unsigned>{
           FUSE_ASYNC_READ, FUSE_DO_READDIRPLUS, FUSE_PARALLEL_DIROPS, FUSE_CACHE_SYMLINKS,
           FUSE_EXPORT_SUPPORT, FUSE_EXPLICIT_INVAL_DATA, FUSE_MAX_PAGES, FUSE_POSIX_ACL}) {
    EXPECT_NE(init_.flags & flag, 0U) << flag;
  }
  for (const unsigned flag : std::initializer_list<unsigned>{
           FUSE_ASYNC_DIO, FUSE_AUTO_INVAL_DATA, FUSE_READDIRPLUS_AUTO, FUSE_WRITEBACK_CACHE}) {
    EXPECT_EQ(init_.flags & flag, 0U) << flag;
  }
  EXPECT_EQ(init_.max_pages, 256U) << "reads of 1 MiB";
  EXPECT_GE(init_.max_background, 128U);
}

TEST_F(ProtocolTest, NamesAndAttributesAreForEver) {
  image_.NextInode(1);
  const auto one = image_.File("one", "abc");
  Serve();
  const auto entry = Lookup(1, "one");
  EXPECT_EQ(entry.nodeid, 36U) << "inode 1 takes the number that the root has left";
  EXPECT_EQ(entry.attr.ino, one);
  EXPECT_EQ(entry.attr.size, 3U);
  EXPECT_GT(entry.entry_valid, 100'000'000U);
  EXPECT_GT(entry.attr_valid, 100'000'000U);
  const auto missing = Lookup(1, "none");
  EXPECT_EQ(missing.nodeid, 0U) << "a negative entry that the kernel may keep";
  EXPECT_GT(missing.entry_valid, 100'000'000U);
  EXPECT_EQ(Lookup(1, ".").attr.ino, 36U);
  Lookup(36, "below a file", ENOTDIR);
  Lookup(1, std::string(256, 'x'), ENAMETOOLONG);
  Lookup(0x123456789, "x", EIO);
  fuse_getattr_in in{};
  const auto reply = kernel_.Call(FUSE_GETATTR, 1, FakeFuse::Body(in));
  EXPECT_EQ(reply.As<fuse_attr_out>().attr.ino, 36U);
  EXPECT_EQ(kernel_.Call(FUSE_GETATTR, 0x123456789, FakeFuse::Body(in)).error, EIO);
}

TEST_F(ProtocolTest, FilesOfAnImageWithoutOwnersAreTheMounters) {
  for (const bool owners : {true, false}) {
    FakeImage image;
    image.Dir("d");
    image.File("d/f", "abc");
    image.Owner("d/f", 12'345, 54'321);
    image.HasOwners(owners);
    FakeFuse kernel;
    auto session =
        FuseSession::StartOnSocket(image.TakeFilesystem(), options_, kernel.TakeServerEnd());
    ASSERT_TRUE(session.ok()) << session.error().ToString();
    kernel.Init();
    const auto dir = kernel.Call(FUSE_LOOKUP, 1, FakeFuse::Name("d")).As<fuse_entry_out>();
    const auto file =
        kernel.Call(FUSE_LOOKUP, dir.nodeid, FakeFuse::Name("f")).As<fuse_entry_out>();
    EXPECT_EQ(file.attr.uid, owners ? 12'345 : ::geteuid());
    EXPECT_EQ(file.attr.gid, owners ? 54'321 : ::getegid());
    const auto attributes =
        kernel.Call(FUSE_GETATTR, file.nodeid, FakeFuse::Body(fuse_getattr_in{}));
    EXPECT_EQ(attributes.As<fuse_attr_out>().attr.uid, owners ? 12'345 : ::geteuid());
  }
}

TEST_F(ProtocolTest, OpensAreSwitchedOff) {
  image_.File("f", "x");
  Serve();
  const auto f = Lookup(1, "f").nodeid;
  EXPECT_EQ(kernel_.Call(FUSE_OPEN, f, FakeFuse::Body(fuse_open_in{})).error, ENOSYS);
  EXPECT_EQ(kernel_.Call(FUSE_OPENDIR, 1, FakeFuse::Body(fuse_open_in{})).error, ENOSYS);
}

TEST_F(ProtocolTest, OldKernelsGetHandlesThatKeepPages) {
  image_.File("f", "x");
  auto session =
      FuseSession::StartOnSocket(image_.TakeFilesystem(), options_, kernel_.TakeServerEnd());
  ASSERT_TRUE(session.ok());
  kernel_.Init(FUSE_ASYNC_READ);
  const auto f = Lookup(1, "f").nodeid;
  const auto file = kernel_.Call(FUSE_OPEN, f, FakeFuse::Body(fuse_open_in{}));
  EXPECT_EQ(file.error, 0);
  EXPECT_NE(file.As<fuse_open_out>().open_flags & FOPEN_KEEP_CACHE, 0U);
  const auto dir = kernel_.Call(FUSE_OPENDIR, 1, FakeFuse::Body(fuse_open_in{}));
  EXPECT_NE(dir.As<fuse_open_out>().open_flags & FOPEN_CACHE_DIR, 0U);
}

TEST_F(ProtocolTest, ListsWithCookiesInSmallBuffers) {
  std::set<std::string> expected = {".", ".."};
  for (int i = 0; i < 100; ++i) {
    const std::string name =
        "n" + std::to_string(i) + std::string(static_cast<std::size_t>(i), 'x');
    image_.File(name, "");
    expected.insert(name);
  }
  Serve();
  for (const std::uint32_t opcode : {FUSE_READDIR, FUSE_READDIRPLUS}) {
    std::set<std::string> seen;
    std::uint64_t cookie = 0;
    for (int i = 0; i < 200; ++i) {
      const auto reply = kernel_.Call(opcode, 1, FakeFuse::ReadBody(cookie, 512));
      ASSERT_EQ(reply.error, 0);
      ASSERT_LE(reply.payload.size(), 512U);
      if (reply.payload.empty()) break;
      std::size_t at = 0;
      while (at < reply.payload.size()) {
        const std::size_t head = opcode == FUSE_READDIRPLUS ? sizeof(fuse_entry_out) : 0;
        fuse_dirent entry{};
        std::memcpy(&entry, reply.payload.data() + at + head, FUSE_NAME_OFFSET);
        seen.insert(reply.payload.substr(at + head + FUSE_NAME_OFFSET, entry.namelen));
        cookie = entry.off;
        at += head + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
      }
    }
    EXPECT_EQ(seen, expected);
    EXPECT_TRUE(kernel_.Call(opcode, 1, FakeFuse::ReadBody(~0ULL >> 1, 4096)).payload.empty());
  }
}

TEST_F(ProtocolTest, ReadsAndItsEnds) {
  image_.File("f", "0123456789");
  Serve();
  const auto f = Lookup(1, "f").nodeid;
  EXPECT_EQ(kernel_.Call(FUSE_READ, f, FakeFuse::ReadBody(0, 4096)).payload, "0123456789");
  EXPECT_EQ(kernel_.Call(FUSE_READ, f, FakeFuse::ReadBody(5, 2)).payload, "56");
  EXPECT_EQ(kernel_.Call(FUSE_READ, f, FakeFuse::ReadBody(10, 4096)).payload, "");
  EXPECT_EQ(kernel_.Call(FUSE_READ, f, FakeFuse::ReadBody(~0ULL, 4096)).payload, "");
  EXPECT_EQ(kernel_.Call(FUSE_READ, 1, FakeFuse::ReadBody(0, 4096)).error, EISDIR);
  EXPECT_EQ(kernel_.Call(FUSE_READ, 999, FakeFuse::ReadBody(0, 4096)).error, EIO);
  EXPECT_EQ(session_->stats().read_bytes, 12U);
}

TEST_F(ProtocolTest, XattrsOnceForAllWhenThereAreNone) {
  Serve();
  fuse_getxattr_in in{};
  in.size = 100;
  const std::string get = FakeFuse::Body(in) + FakeFuse::Name("user.x");
  EXPECT_EQ(kernel_.Call(FUSE_GETXATTR, 1, get).error, ENOSYS);
  EXPECT_EQ(kernel_.Call(FUSE_LISTXATTR, 1, FakeFuse::Body(in)).error, ENOSYS);
}

TEST_F(ProtocolTest, WritesAreRefused) {
  image_.File("f", "x");
  Serve();
  const auto f = Lookup(1, "f").nodeid;
  EXPECT_NE(kernel_.Call(FUSE_UNLINK, 1, FakeFuse::Name("f")).error, 0);
  EXPECT_NE(kernel_.Call(FUSE_SETATTR, f, FakeFuse::Body(fuse_setattr_in{})).error, 0);
  EXPECT_NE(kernel_.Call(FUSE_WRITE, f, FakeFuse::Body(fuse_write_in{})).error, 0);
}

TEST_F(ProtocolTest, AnInterruptOfAKilledReaderEndsItsRead) {
  image_.File("f", "x");
  Serve();
  const auto f = Lookup(1, "f").nodeid;
  image_.blob().Withhold();
  const auto read = kernel_.Send(FUSE_READ, f, FakeFuse::ReadBody(0, 4096), 0x7FFFFFF0);
  ASSERT_TRUE(image_.blob().AwaitWaiting(1));
  kernel_.Interrupt(read);
  const auto reply = kernel_.Receive();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->unique, read);
  EXPECT_EQ(reply->error, EINTR);
  image_.blob().Release();
}

TEST_F(ProtocolTest, MetadataIsServedWhileReadsWaitAndQueue) {
  image_.File("f", "content");
  options_.max_threads = 4;
  Serve();
  const auto f = Lookup(1, "f").nodeid;
  image_.blob().Withhold();
  std::set<std::uint64_t> reads;
  for (int i = 0; i < 20; ++i) reads.insert(kernel_.Send(FUSE_READ, f, FakeFuse::ReadBody(0, 9)));
  ASSERT_TRUE(image_.blob().AwaitWaiting(2));
  EXPECT_EQ(Lookup(1, "f").attr.size, 7U);
  EXPECT_EQ(image_.blob().waiting(), 2) << "two of the four threads are kept free";
  image_.blob().Release();
  while (!reads.empty()) {
    const auto reply = kernel_.Receive();
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->payload, "content");
    EXPECT_EQ(reads.erase(reply->unique), 1U);
  }
}

TEST_F(ProtocolTest, TheEndAnswersWhatIsInFlight) {
  image_.File("f", "content");
  options_.max_threads = 2;
  Serve();
  const auto f = Lookup(1, "f").nodeid;
  image_.blob().Withhold();
  for (int i = 0; i < 5; ++i) kernel_.Send(FUSE_READ, f, FakeFuse::ReadBody(0, 9));
  ASSERT_TRUE(image_.blob().AwaitWaiting(1));
  while (session_->Inflight().size() < 5) std::this_thread::yield();
  session_.reset();
  for (int i = 0; i < 5; ++i) {
    const auto reply = kernel_.Receive();
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->error, EIO);
  }
}

TEST_F(ProtocolTest, AClosedConnectionIsNoticed) {
  Serve();
  EXPECT_TRUE(session_->alive());
  kernel_.Close();
  const TimePoint until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (session_->alive() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_FALSE(session_->alive());
}

}  // namespace
}  // namespace davit::rafs
