#include "common/json/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace davit::json {
namespace {

TEST(Json, RefusesDeepLargeAndMalformedText) {
  EXPECT_TRUE(Parse(std::string(64, '[') + std::string(64, ']'), "x").ok());
  EXPECT_FALSE(Parse(std::string(65, '[') + std::string(65, ']'), "x").ok());
  EXPECT_FALSE(Parse(std::string(1000000, '['), "x").ok());
  EXPECT_NE(Parse("{\"a\":", "manifest").error().message().find("manifest"), std::string::npos);
  EXPECT_FALSE(Parse("[1,2]", "x", 3).ok());
  EXPECT_FALSE(Parse("{} x", "x").ok());
}

TEST(Json, TypedAccess) {
  const auto doc =
      Parse(R"({"s":"v","n":18446744073709551615,"neg":-1,"f":1.5,"b":true,"o":{},"z":null})", "x");
  ASSERT_TRUE(doc.ok());
  EXPECT_EQ(*NeedString(*doc, "s"), "v");
  EXPECT_EQ(*NeedUint(*doc, "n"), UINT64_MAX);
  EXPECT_FALSE(NeedUint(*doc, "neg").ok());
  EXPECT_FALSE(NeedUint(*doc, "f").ok());
  EXPECT_FALSE(GetString(*doc, "n").ok());
  EXPECT_FALSE(GetString(*doc, "z")->has_value());
  EXPECT_FALSE(NeedString(*doc, "missing").ok());
  EXPECT_TRUE(**GetBool(*doc, "b"));
  EXPECT_NE(*GetObject(*doc, "o"), nullptr);
  EXPECT_EQ(*GetArray(*doc, "missing"), nullptr);
  EXPECT_FALSE(GetArray(*doc, "o").ok());
  EXPECT_FALSE(GetString(nlohmann::json::array(), "s").ok());
}

TEST(Json, DumpNeverThrowsOnBadText) {
  EXPECT_NE(Dump(nlohmann::json("a\xff")).find('a'), std::string::npos);
}

}  // namespace
}  // namespace davit::json
