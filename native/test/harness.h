// A small test harness: TEST(name) { ... CHECK(condition); CHECK_SAY(condition, "what was tried"); }
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace openwork::test {

struct Case {
  const char* name;
  void (*run)();
};
std::vector<Case>& cases();
// How many random problems a test draws: `usual` of them where OPENWORK_TEST_PROBLEMS is not set or 10000, else more or fewer
// in proportion, for long nights and for emulators.
unsigned random_problems(unsigned usual);
void fail(const char* file, int line, const char* condition, const std::string& detail);

struct Registration {
  Registration(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The sentence with which f refuses what it was given, or "" where it takes it.
template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

}  // namespace openwork::test

#define TEST(name)                                                               \
  static void test_##name();                                                     \
  static const ::openwork::test::Registration registration_##name(#name, test_##name); \
  static void test_##name()

#define CHECK_SAY(condition, detail)                                                       \
  do {                                                                                     \
    if (!(condition)) ::openwork::test::fail(__FILE__, __LINE__, #condition, (detail));    \
  } while (false)
#define CHECK(condition) CHECK_SAY(condition, std::string())
