#include "common/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <list>
#include <nlohmann/json.hpp>

#include "common/base/sync.h"

namespace davit::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

class CounterImpl final : public Counter {
 public:
  explicit CounterImpl(prometheus::Counter& inner) : inner_(inner) {}
  void Add(double amount) override { inner_.Increment(amount); }
  double value() const override { return inner_.Value(); }

 private:
  prometheus::Counter& inner_;
};

class GaugeImpl final : public Gauge {
 public:
  explicit GaugeImpl(prometheus::Gauge& inner) : inner_(inner) {}
  void Set(double value) override { inner_.Set(value); }
  void Add(double amount) override { inner_.Increment(amount); }
  double value() const override { return inner_.Value(); }

 private:
  prometheus::Gauge& inner_;
};

class HistogramImpl final : public Histogram {
 public:
  explicit HistogramImpl(prometheus::Histogram& inner) : inner_(inner) {}
  void Observe(double value) override { inner_.Observe(value); }

 private:
  prometheus::Histogram& inner_;
};

class SinkImpl final : public Sink {
 public:
  explicit SinkImpl(std::map<std::string, MetricFamily>& families) : families_(families) {}
  void Counter(std::string_view name, std::string_view help, double value,
               const Labels& labels) override {
    Put(name, help, labels, MetricType::Counter).counter.value = value;
  }
  void Gauge(std::string_view name, std::string_view help, double value,
             const Labels& labels) override {
    Put(name, help, labels, MetricType::Gauge).gauge.value = value;
  }

 private:
  ClientMetric& Put(std::string_view name, std::string_view help, const Labels& labels,
                    MetricType type) {
    MetricFamily& family = families_[std::string(name)];
    family.name = name;
    family.help = help;
    family.type = type;
    ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [key, text] : labels) metric.label.push_back({key, text});
    return metric;
  }

  std::map<std::string, MetricFamily>& families_;
};

// Serialises runs of a collector with its removal.
struct CollectorSlot {
  Mutex mutex;
  Collector run DAVIT_GUARDED_BY(mutex);
};

std::string_view TypeName(MetricType type) {
  switch (type) {
    case MetricType::Counter:
      return "counter";
    case MetricType::Gauge:
      return "gauge";
    case MetricType::Histogram:
      return "histogram";
    default:
      return "untyped";
  }
}

nlohmann::ordered_json MetricJson(const ClientMetric& metric, MetricType type) {
  nlohmann::ordered_json out;
  out["labels"] = nlohmann::ordered_json::object();
  for (const auto& label : metric.label) out["labels"][label.name] = label.value;
  if (type == MetricType::Histogram) {
    out["count"] = metric.histogram.sample_count;
    out["sum"] = metric.histogram.sample_sum;
    auto buckets = nlohmann::ordered_json::array();
    for (const auto& bucket : metric.histogram.bucket) {
      if (std::isinf(bucket.upper_bound)) continue;  // the last one is "count"
      buckets.push_back({{"le", bucket.upper_bound}, {"count", bucket.cumulative_count}});
    }
    out["buckets"] = std::move(buckets);
  } else {
    out["value"] = type == MetricType::Counter ? metric.counter.value : metric.gauge.value;
  }
  return out;
}

class RegistryImpl final : public Registry {
 public:
  Counter& AddCounter(const std::string& name, const std::string& help,
                      const Labels& labels) override {
    auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(inner_);
    const MutexLock lock(mutex_);
    return Keep(counters_, family.Add(labels));
  }
  Gauge& AddGauge(const std::string& name, const std::string& help, const Labels& labels) override {
    auto& family = prometheus::BuildGauge().Name(name).Help(help).Register(inner_);
    const MutexLock lock(mutex_);
    return Keep(gauges_, family.Add(labels));
  }
  Histogram& AddHistogram(const std::string& name, const std::string& help,
                          const std::vector<double>& buckets, const Labels& labels) override {
    auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(inner_);
    const MutexLock lock(mutex_);
    return Keep(histograms_, family.Add(labels, buckets));
  }

  std::shared_ptr<void> AddCollector(Collector collector) override {
    auto slot = std::make_shared<CollectorSlot>();
    {
      const MutexLock lock(slot->mutex);
      slot->run = std::move(collector);
    }
    const MutexLock lock(mutex_);
    std::erase_if(collectors_, [](const auto& weak) { return weak.expired(); });
    collectors_.push_back(slot);
    // The caller's handle owns the slot and empties it, waiting for a run in progress.
    return {slot.get(), [slot](void*) {
              const MutexLock inner(slot->mutex);
              slot->run = nullptr;
            }};
  }

  std::string PrometheusText() const override {
    return prometheus::TextSerializer().Serialize(Families());
  }

  std::string Json() const override {
    auto out = nlohmann::ordered_json::array();
    for (const MetricFamily& family : Families()) {
      nlohmann::ordered_json item;
      item["name"] = family.name;
      item["help"] = family.help;
      item["type"] = TypeName(family.type);
      item["values"] = nlohmann::ordered_json::array();
      for (const ClientMetric& metric : family.metric) {
        item["values"].push_back(MetricJson(metric, family.type));
      }
      out.push_back(std::move(item));
    }
    return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }

 private:
  template <class Base, class Inner>
  Base& Keep(std::map<Inner*, std::unique_ptr<Base>>& kept, Inner& inner) DAVIT_REQUIRES(mutex_) {
    using Impl = std::conditional_t<
        std::is_same_v<Base, Counter>, CounterImpl,
        std::conditional_t<std::is_same_v<Base, Gauge>, GaugeImpl, HistogramImpl>>;
    auto& slot = kept[&inner];
    if (slot == nullptr) slot = std::make_unique<Impl>(inner);
    return *slot;
  }

  std::vector<MetricFamily> Families() const {
    std::map<std::string, MetricFamily> families;
    for (MetricFamily& family : inner_.Collect()) families[family.name] = std::move(family);
    std::vector<std::shared_ptr<CollectorSlot>> slots;
    {
      const MutexLock lock(mutex_);
      for (const auto& weak : collectors_) {
        if (auto slot = weak.lock()) slots.push_back(std::move(slot));
      }
    }
    SinkImpl sink(families);
    for (const auto& slot : slots) {
      const MutexLock lock(slot->mutex);
      if (slot->run) slot->run(sink);
    }
    std::vector<MetricFamily> out;
    for (auto& [name, family] : families) out.push_back(std::move(family));
    return out;
  }

  // Merge: the same name and help twice is the same family.
  mutable prometheus::Registry inner_{prometheus::Registry::InsertBehavior::Merge};
  mutable Mutex mutex_;
  std::map<prometheus::Counter*, std::unique_ptr<Counter>> counters_ DAVIT_GUARDED_BY(mutex_);
  std::map<prometheus::Gauge*, std::unique_ptr<Gauge>> gauges_ DAVIT_GUARDED_BY(mutex_);
  std::map<prometheus::Histogram*, std::unique_ptr<Histogram>> histograms_ DAVIT_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<CollectorSlot>> collectors_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Registry> Registry::Create() { return std::make_unique<RegistryImpl>(); }

std::vector<double> LatencyBuckets() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120};
}

}  // namespace davit::metrics
