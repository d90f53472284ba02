// What the tests of the float operators share: plain sums, random numbers, guarded memory, and a run on every instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "test/guarded.h"
#include "test/harness.h"
#include "test/tables.h"

namespace openwork {

using Floats = std::vector<float>;

inline float min_of(float a, float b) { return a < b ? a : b; }
inline float max_of(float a, float b) { return a > b ? a : b; }

inline float tree(float (&acc)[16]) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) acc[i] += acc[i + half];
  return acc[0];
}
inline float sum16(const float* x, int64_t n) {
  float acc[16] = {};
  for (int64_t i = 0; i < n; ++i) acc[i % 16] += x[i];
  return tree(acc);
}
inline float dot16(const float* x, const float* y, int64_t n) {
  float acc[16] = {};
  for (int64_t i = 0; i < n; ++i) acc[i % 16] = std::fma(x[i], y[i], acc[i % 16]);
  return tree(acc);
}
inline float dot16(const float* x, int64_t n) { return dot16(x, x, n); }
inline uint8_t plain_quantize(float x, const Quantizer& q) {
  const float v = std::nearbyint(x * q.inverse_scale);
  const float low = static_cast<float>(-q.zero_point), high = static_cast<float>(255 - q.zero_point);
  return static_cast<uint8_t>(static_cast<int>(min_of(max_of(v, low), high)) + q.zero_point);
}
inline std::vector<uint8_t> plain_quantize(const Floats& x, const Quantizer& q) {
  std::vector<uint8_t> y;
  for (const float v : x) y.push_back(plain_quantize(v, q));
  return y;
}


struct Random {
  unsigned seed;
  std::mt19937 engine{seed};

  int64_t below(int64_t n) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(n)); }
  Floats floats(int64_t n, float spread = 2.0f) {
    std::normal_distribution<float> normal(0.0f, spread);
    Floats x(n);
    for (auto& v : x) v = normal(engine);
    return x;
  }
  std::vector<int64_t> mask(int64_t n) {
    std::vector<int64_t> m(n);
    for (auto& v : m) v = below(3) ? 1 + below(5) : 0;
    return m;
  }
};

// Memory behind which neither reads nor writes go unseen.
template <class T>
struct End {
  Guarded memory;
  explicit End(const std::vector<T>& v) : memory(v.data(), v.size() * sizeof(T), 0) {}
  explicit End(int64_t count) : memory(nullptr, count * sizeof(T), 0) {}
  T* data() const { return reinterpret_cast<T*>(memory.data()); }
  bool holds(const std::vector<T>& v) const { return std::memcmp(data(), v.data(), v.size() * sizeof(T)) == 0; }
};

inline constexpr Quantizer kQuantizer{31.0f, 119};

// Runs on every instruction set, in one range and cut in two.
inline void on_every_isa(int64_t units, const std::function<void(const KernelTable&, int64_t, int64_t)>& run,
                  const std::function<bool()>& same, const std::string& what) {
  for (const KernelTable* table : test::own_tables()) {
    run(*table, 0, units);
    CHECK_SAY(same(), what + " on " + table->isa);
    run(*table, units / 2, units);
    run(*table, 0, units / 2);
    CHECK_SAY(same(), what + " in two parts on " + table->isa);
  }
}

inline std::string text(const char* what, std::initializer_list<int64_t> sizes, unsigned seed) {
  std::string s = what;
  for (const int64_t n : sizes) s.append(" ").append(std::to_string(n));
  return s + " seed " + std::to_string(seed);
}

inline constexpr int64_t kWidths[] = {1, 15, 16, 17, 32, 63, 64, 97, 384};

}  // namespace openwork
