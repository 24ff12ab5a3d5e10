// What is possible at best, for comparison: the least that has to be done to get a blob, and the
// least that a FUSE file system does to hand a file over.
//
//   bench_floor download REFERENCE FILE   8 parallel range downloads, decode, verify, write
//   bench_floor fuse FILE MOUNTPOINT      serves FILE as MOUNTPOINT/file until it is unmounted
#define FUSE_USE_VERSION 312
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/fd.h"
#include "common/http/client.h"
#include "rafs/image/image.h"
#include "storage/registry/client.h"

namespace davit {
namespace {

constexpr int kDownloads = 8;
constexpr std::uint64_t kRangeBytes = 8U << 20;
constexpr fuse_ino_t kFile = 2;
constexpr unsigned kMaxRead = 1U << 20;

struct Blob {
  std::shared_ptr<storage::BlobSource> source;
  std::shared_ptr<const storage::BlobMap> map;
};

Result<Blob> OpenOnlyBlob(const std::string& text, registry::Registries& registries) {
  DAVIT_TRY_ASSIGN(const auto reference, registry::Reference::Parse(text));
  DAVIT_TRY_ASSIGN(const auto repository, registries.Open(reference));
  DAVIT_TRY_ASSIGN(const auto image, rafs::FindImage({}, *repository, reference.TagOrDigest(),
                                                     oci::Platform::Host()));
  DAVIT_TRY_ASSIGN(const TempDir directory, TempDir::Create("bench-floor"));
  DAVIT_TRY(rafs::FetchBootstrap({}, *repository, image, directory.path()));
  DAVIT_TRY_ASSIGN(std::shared_ptr<const rafs::Metadata> tree,
                   rafs::OpenBootstrap(directory.path()));
  if (tree->blobs().size() != 1) return Error(Code::kInvalidArgument, "the image has many blobs");
  const std::string digest = "sha256:" + tree->blobs()[0].id.value;
  Blob blob;
  for (const oci::Descriptor& layer : image.parsed.layers) {
    if (layer.digest == digest) blob.source = repository->OpenBlob(layer);
  }
  if (!blob.source) return Error(Code::kNotFound, "no layer is the image's blob");
  DAVIT_TRY_ASSIGN(blob.map, rafs::MapLoader(tree, 0, blob.source, directory.path())({}));
  return blob;
}

// Neighbouring units that are fetched with one request.
struct Range {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  ByteRange bytes;
};

std::vector<Range> Cut(const storage::BlobMap& map) {
  std::vector<Range> out;
  for (std::uint32_t i = 0; i < map.unit_count(); ++i) {
    const storage::Unit unit = map.UnitAt(i);
    const std::uint64_t end = unit.compressed_offset + unit.compressed_size;
    if (out.empty() || end - out.back().bytes.offset > kRangeBytes) {
      out.push_back({.first = i, .last = i, .bytes = {unit.compressed_offset, 0}});
    }
    out.back().last = i + 1;
    out.back().bytes.length = end - out.back().bytes.offset;
  }
  return out;
}

Status FetchOne(const Blob& blob, const Range& range, int fd, std::vector<std::byte>& scratch) {
  std::vector<std::byte> stored;
  stored.reserve(range.bytes.length);
  storage::SourceRead how;
  DAVIT_TRY(blob.source->Read({}, range.bytes, how, [&](Bytes piece) -> Status {
    stored.insert(stored.end(), piece.begin(), piece.end());
    return {};
  }));
  for (std::uint32_t i = range.first; i < range.last; ++i) {
    const storage::Unit unit = blob.map->UnitAt(i);
    scratch.resize(unit.uncompressed_size);
    DAVIT_TRY(blob.map->Decode(
        i, Bytes(stored).subspan(unit.compressed_offset - range.bytes.offset, unit.compressed_size),
        scratch));
    const auto [first, last] = blob.map->ChunksOfUnit(i);
    for (std::uint32_t c = first; c < last; ++c) {
      const storage::Chunk chunk = blob.map->ChunkAt(c);
      const Bytes bytes = Bytes(scratch).subspan(chunk.offset_in_unit, chunk.size);
      DAVIT_TRY(storage::VerifyChunk(*blob.map, chunk, bytes));
      if (::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(chunk.offset)) !=
          static_cast<ssize_t>(bytes.size())) {
        return Error::FromErrno(errno, "write");
      }
    }
  }
  return {};
}

Status Download(const std::string& reference, const std::string& path) {
  const auto http = http::Client::Create({});
  registry::RegistryOptions options;
  options.plain_http = true;
  const auto registries = registry::Registries::Create(options, *http, Clock::Real(), nullptr);
  DAVIT_TRY_ASSIGN(const Blob blob, OpenOnlyBlob(reference, *registries));
  DAVIT_TRY_ASSIGN(const UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_TRUNC));
  const std::vector<Range> ranges = Cut(*blob.map);
  std::atomic<std::size_t> next{0};
  std::vector<Status> results(kDownloads);
  const auto begin = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kDownloads; ++t) {
      threads.emplace_back([&, t] {
        std::vector<std::byte> scratch;
        for (std::size_t i = next++; i < ranges.size(); i = next++) {
          Status status = FetchOne(blob, ranges[i], fd.get(), scratch);
          if (!status) {
            results[static_cast<std::size_t>(t)] = std::move(status);
            return;
          }
        }
      });
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  for (Status& status : results) DAVIT_TRY(std::move(status));
  std::printf("%.3f\n", static_cast<double>(blob.map->uncompressed_size()) / took.count() / 1e6);
  return {};
}

struct Served {
  int fd = -1;
  struct stat st{};
};
Served served;

void Attr(fuse_ino_t ino, struct stat& st) {
  st = served.st;
  st.st_ino = ino;
  if (ino == FUSE_ROOT_ID) st.st_mode = S_IFDIR | 0755;
}

void OnLookup(fuse_req_t req, fuse_ino_t, const char* name) {
  if (std::strcmp(name, "file") != 0) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_entry_param entry{};
  entry.ino = kFile;
  entry.attr_timeout = entry.entry_timeout = 3600;
  Attr(kFile, entry.attr);
  fuse_reply_entry(req, &entry);
}

void OnGetattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  struct stat st{};
  Attr(ino, st);
  fuse_reply_attr(req, &st, 3600);
}

void OnOpen(fuse_req_t req, fuse_ino_t, fuse_file_info* info) { fuse_reply_open(req, info); }

void OnRead(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
  thread_local std::vector<char> buffer(kMaxRead);
  const ssize_t n = ::pread(served.fd, buffer.data(), std::min(size, buffer.size()), offset);
  if (n < 0) {
    fuse_reply_err(req, errno);
  } else {
    fuse_reply_buf(req, buffer.data(), static_cast<std::size_t>(n));
  }
}

void OnInit(void*, fuse_conn_info* connection) {
  connection->max_read = kMaxRead;
  connection->max_readahead = kMaxRead;
}

int Serve(const char* path, const char* mountpoint) {
  served.fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (served.fd < 0 || ::fstat(served.fd, &served.st) != 0) return 1;
  fuse_lowlevel_ops ops{};
  ops.init = OnInit;
  ops.lookup = OnLookup;
  ops.getattr = OnGetattr;
  ops.open = OnOpen;
  ops.read = OnRead;
  char name[] = "bench_floor", option[] = "-o", value[] = "ro,max_read=1048576";
  char* argv[] = {name, option, value, nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, argv);
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (session == nullptr || fuse_session_mount(session, mountpoint) != 0) return 1;
  const int code = fuse_session_loop_mt(session, nullptr);
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return code < 0 ? 1 : 0;
}

}  // namespace
}  // namespace davit

int main(int argc, char** argv) {
  const std::string what = argc == 4 ? argv[1] : "";
  if (what == "fuse") return davit::Serve(argv[2], argv[3]);
  if (what != "download") {
    std::fprintf(stderr, "usage: bench_floor download REFERENCE FILE | fuse FILE MOUNTPOINT\n");
    return 2;
  }
  const davit::Status status = davit::Download(argv[2], argv[3]);
  if (status) return 0;
  std::fprintf(stderr, "bench_floor: %s\n", status.error().ToString().c_str());
  return 1;
}
