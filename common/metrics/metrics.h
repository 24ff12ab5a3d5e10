#pragma once
// Counters, gauges and histograms with names and help texts, in one registry that main() makes and
// passes down. Output as Prometheus text and as JSON. prometheus-cpp stays in metrics.cc.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace davit::metrics {

using Labels = std::map<std::string, std::string>;

/// Only grows. Thread-safe, lock-free.
class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Add(double amount = 1) = 0;
  virtual double value() const = 0;
};

/// Goes up and down. Thread-safe, lock-free.
class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
  virtual void Add(double amount) = 0;
  virtual double value() const = 0;
};

/// Distribution over fixed buckets (upper bounds, ascending). Thread-safe.
class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
};

/// Values that exist elsewhere and are asked for when somebody scrapes.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void Counter(std::string_view name, std::string_view help, double value,
                       const Labels& labels = {}) = 0;
  virtual void Gauge(std::string_view name, std::string_view help, double value,
                     const Labels& labels = {}) = 0;
};
using Collector = std::function<void(Sink&)>;

/// Thread-safe. What it returns lives as long as the registry; asking again for the same name and
/// labels gives the same object. Names begin with "davit_"; counters end with "_total".
class Registry {
 public:
  static std::unique_ptr<Registry> Create();
  virtual ~Registry() = default;
  virtual class Counter& AddCounter(const std::string& name, const std::string& help,
                                    const Labels& labels = {}) = 0;
  virtual class Gauge& AddGauge(const std::string& name, const std::string& help,
                                const Labels& labels = {}) = 0;
  virtual class Histogram& AddHistogram(const std::string& name, const std::string& help,
                                        const std::vector<double>& buckets,
                                        const Labels& labels = {}) = 0;
  /// `collector` runs at each output, on the caller's thread; it must not block. The returned
  /// handle ends it: after its destruction the collector does not run any more.
  [[nodiscard]] virtual std::shared_ptr<void> AddCollector(Collector collector) = 0;

  /// Prometheus text exposition format 0.0.4, families sorted by name.
  virtual std::string PrometheusText() const = 0;
  /// [{"name","help","type","values":[{"labels":{},"value":0}]}]; histograms have "count", "sum"
  /// and "buckets" instead of "value".
  virtual std::string Json() const = 0;
};

/// Buckets for durations in seconds, 1 ms to about 2 minutes.
std::vector<double> LatencyBuckets();

}  // namespace davit::metrics
