#include "common/base/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>

#include "common/base/log_file.h"
#include "common/base/sync.h"

namespace davit::log {
namespace {

std::shared_ptr<spdlog::logger> MakeLogger(spdlog::sink_ptr target) {
  auto logger = std::make_shared<spdlog::logger>("davit", std::move(target));
  logger->set_pattern("%v");
  logger->set_level(spdlog::level::trace);
  logger->flush_on(spdlog::level::trace);
  return logger;
}

struct Sink {
  Mutex mutex;
  std::shared_ptr<spdlog::logger> logger DAVIT_GUARDED_BY(mutex) =
      MakeLogger(std::make_shared<spdlog::sinks::stderr_sink_mt>());
  std::atomic<Level> level{Level::kInfo};
  std::atomic<bool> json{false};
};

// Never destroyed: threads may log until the process ends.
Sink& TheSink() {
  static Sink* sink = new Sink;
  return *sink;
}

thread_local std::vector<Field> scope_fields;

std::string Timestamp() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto micros =
      std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count() %
      1'000'000;
  std::tm tm{};
  gmtime_r(&seconds, &tm);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, micros);
}

// JSON string escapes; also keeps text logs to one line per event.
void AppendEscaped(std::string& out, std::string_view text) {
  for (char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        } else {
          out.push_back(c);
        }
    }
  }
}

void AppendText(std::string& out, const Field& field) {
  out += ' ';
  out += field.key;
  out += '=';
  const bool plain =
      !field.text.empty() && field.text.find_first_of(" \"\\=\n\r\t") == std::string::npos;
  if (plain) {
    out += field.text;
    return;
  }
  out += '"';
  AppendEscaped(out, field.text);
  out += '"';
}

void AppendJson(std::string& out, const Field& field) {
  out += ",\"";
  AppendEscaped(out, field.key);
  out += "\":";
  if (!field.quoted) {
    out += field.text;
    return;
  }
  out += '"';
  AppendEscaped(out, field.text);
  out += '"';
}

// Those that neither the line itself nor a scope further in says otherwise.
template <class Use>
void ForEachScopeField(Fields own, Use use) {
  const auto has = [](auto begin, auto end, const std::string& key) {
    return std::any_of(begin, end, [&](const Field& field) { return field.key == key; });
  };
  for (auto it = scope_fields.begin(); it != scope_fields.end(); ++it) {
    if (has(own.begin(), own.end(), it->key)) continue;
    if (!has(it + 1, scope_fields.end(), it->key)) use(*it);
  }
}

std::string Format(Level level, std::string_view message, Fields fields, bool json) {
  std::string line;
  if (json) {
    line = fmt::format(R"({{"time":"{}","level":"{}","msg":")", Timestamp(), LevelName(level));
    AppendEscaped(line, message);
    line += '"';
    ForEachScopeField(fields, [&](const Field& field) { AppendJson(line, field); });
    for (const Field& field : fields) AppendJson(line, field);
    line += '}';
    return line;
  }
  line = fmt::format("{} {:<5} ", Timestamp(), LevelName(level));
  AppendEscaped(line, message);
  ForEachScopeField(fields, [&](const Field& field) { AppendText(line, field); });
  for (const Field& field : fields) AppendText(line, field);
  return line;
}

/// Lines that the file does not take go to standard error, so that none is lost; the first one
/// that it takes again is followed by how many those were.
class FileSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  FileSink(std::unique_ptr<RotatingFile> file, bool json) : file_(std::move(file)), json_(json) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string line = std::string(message.payload.data(), message.payload.size()) + "\n";
    const Status written = file_->Append(line);
    if (!written.ok()) {
      if (missed_++ == 0) ToStandardError("the log file cannot be written", written.error());
      static_cast<void>(WriteFull(STDERR_FILENO, AsBytes(line)));
      return;
    }
    if (missed_ == 0) return;
    const std::string note =
        Format(Level::kWarn, "log lines went to standard error", {{"lines", missed_}}, json_) +
        "\n";
    if (file_->Append(note).ok()) missed_ = 0;
  }
  void flush_() override {}

 private:
  void ToStandardError(std::string_view message, const davit::Error& error) const {
    const std::string line = Format(Level::kError, message, {{"error", error}}, json_) + "\n";
    static_cast<void>(WriteFull(STDERR_FILENO, AsBytes(line)));
  }

  std::unique_ptr<RotatingFile> file_;
  const bool json_;
  std::uint64_t missed_ = 0;
};

}  // namespace

std::string_view LevelName(Level level) {
  switch (level) {
    case Level::kTrace:
      return "trace";
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarn:
      return "warn";
    case Level::kError:
      return "error";
    case Level::kOff:
      return "off";
  }
  return "off";
}

Result<Level> ParseLevel(std::string_view name) {
  for (Level level :
       {Level::kTrace, Level::kDebug, Level::kInfo, Level::kWarn, Level::kError, Level::kOff}) {
    if (LevelName(level) == name) return level;
  }
  return davit::Error(Code::kInvalidArgument, fmt::format("unknown log level '{}'", name))
      .WithHint("use trace, debug, info, warn, error or off");
}

Status Configure(const Options& options) {
  spdlog::sink_ptr target;
  if (options.file.empty()) {
    target = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    auto file = RotatingFile::Open(options.file, options.rotate_bytes, options.keep_files);
    if (!file.ok()) {
      return std::move(file)
          .error()
          .WithCode(Code::kInvalidArgument)
          .WithContext("log file")
          .WithHint("choose a file in a directory that can be written");
    }
    target = std::make_shared<FileSink>(*std::move(file), options.json);
  }
  auto logger = MakeLogger(std::move(target));
  Sink& sink = TheSink();
  MutexLock lock(sink.mutex);
  sink.logger = std::move(logger);
  sink.level = options.level;
  sink.json = options.json;
  return {};
}

void SetLevel(Level level) { TheSink().level = level; }
Level GetLevel() { return TheSink().level; }

void Write(Level level, std::string_view message, Fields fields) {
  Sink& sink = TheSink();
  if (level < sink.level.load(std::memory_order_relaxed) || level == Level::kOff) return;
  const std::string line = Format(level, message, fields, sink.json);
  std::shared_ptr<spdlog::logger> logger;
  {
    MutexLock lock(sink.mutex);
    logger = sink.logger;
  }
  logger->log(spdlog::level::info, "{}", line);
}

Scope::Scope(Fields fields) : count_(fields.size()) {
  scope_fields.insert(scope_fields.end(), fields.begin(), fields.end());
}

Scope::Scope(const std::vector<Field>& fields) : count_(fields.size()) {
  scope_fields.insert(scope_fields.end(), fields.begin(), fields.end());
}

Scope::~Scope() {
  for (std::size_t i = 0; i < count_; ++i) scope_fields.pop_back();
}

std::vector<Field> ScopeFields() { return scope_fields; }

std::string ScopeValue(std::string_view key) {
  for (auto it = scope_fields.rbegin(); it != scope_fields.rend(); ++it) {
    if (it->key == key) return it->text;
  }
  return {};
}

}  // namespace davit::log
