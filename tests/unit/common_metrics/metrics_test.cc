#include "common/metrics/metrics.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "common/json/json.h"

namespace davit::metrics {
namespace {

TEST(MetricsTest, PrometheusText) {
  const auto registry = Registry::Create();
  registry->AddCounter("davit_x_total", "Things", {{"kind", "a"}}).Add(3);
  registry->AddGauge("davit_y", "Level").Set(-1.5);
  auto& histogram = registry->AddHistogram("davit_z_seconds", "Time", {0.1, 1});
  histogram.Observe(0.05);
  histogram.Observe(5);
  const std::string text = registry->PrometheusText();
  EXPECT_NE(text.find("# HELP davit_x_total Things\n# TYPE davit_x_total counter\n"
                      "davit_x_total{kind=\"a\"} 3\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("davit_y -1.5\n"), std::string::npos) << text;
  EXPECT_NE(text.find("davit_z_seconds_bucket{le=\"0.1\"} 1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("davit_z_seconds_bucket{le=\"+Inf\"} 2\n"), std::string::npos) << text;
}

TEST(MetricsTest, TheSameNameIsTheSameMetric) {
  const auto registry = Registry::Create();
  Counter& first = registry->AddCounter("davit_x_total", "Things", {{"kind", "a"}});
  Counter& other = registry->AddCounter("davit_x_total", "Things", {{"kind", "b"}});
  EXPECT_EQ(&first, &registry->AddCounter("davit_x_total", "Things", {{"kind", "a"}}));
  EXPECT_NE(&first, &other);
  first.Add();
  EXPECT_EQ(first.value(), 1);
  EXPECT_EQ(other.value(), 0);
}

TEST(MetricsTest, JsonHasTheSame) {
  const auto registry = Registry::Create();
  registry->AddCounter("davit_x_total", "Things", {{"kind", "a\"b"}}).Add(2);
  registry->AddHistogram("davit_z_seconds", "Time", {0.1, 1}).Observe(0.5);
  const auto parsed = json::Parse(registry->Json(), "metrics");
  ASSERT_TRUE(parsed.ok());
  ASSERT_EQ(parsed->size(), 2U);
  EXPECT_EQ(parsed->at(0).at("values").at(0).at("value"), 2);
  EXPECT_EQ(parsed->at(0).at("values").at(0).at("labels").at("kind"), "a\"b");
  EXPECT_EQ(parsed->at(1).at("type"), "histogram");
  EXPECT_EQ(parsed->at(1).at("values").at(0).at("count"), 1);
  EXPECT_EQ(parsed->at(1).at("values").at(0).at("buckets").size(), 2U);
}

TEST(MetricsTest, CollectorsAreAskedAtEachOutputUntilTheirHandleGoes) {
  const auto registry = Registry::Create();
  int asked = 0;
  auto handle = registry->AddCollector([&](Sink& sink) {
    sink.Gauge("davit_now", "Present", ++asked);
    sink.Counter("davit_parts_total", "Parts", 1, {{"part", "a"}});
    sink.Counter("davit_parts_total", "Parts", 2, {{"part", "b"}});
  });
  EXPECT_NE(registry->PrometheusText().find("davit_now 1\n"), std::string::npos);
  const std::string text = registry->PrometheusText();
  EXPECT_NE(text.find("davit_now 2\n"), std::string::npos);
  EXPECT_EQ(text.find("# TYPE davit_parts_total"), text.rfind("# TYPE davit_parts_total"));
  EXPECT_NE(text.find("davit_parts_total{part=\"b\"} 2\n"), std::string::npos);
  handle.reset();
  EXPECT_EQ(registry->PrometheusText().find("davit_now"), std::string::npos);
  EXPECT_EQ(asked, 2);
}

TEST(MetricsTest, ThreadsMayCountAtOnce) {
  const auto registry = Registry::Create();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int n = 0; n < 1000; ++n) {
          registry->AddCounter("davit_x_total", "Things").Add();
          if (n % 100 == 0) static_cast<void>(registry->PrometheusText());
        }
      });
    }
  }
  EXPECT_EQ(registry->AddCounter("davit_x_total", "Things").value(), 4000);
}

}  // namespace
}  // namespace davit::metrics
