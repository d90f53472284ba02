#include "runtime/timing/peak.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/thread_pool.h"

namespace openwork {

namespace {

// Long against the wake of a thread and the reading of the clock, short against the wander of the core's clock.
constexpr double kRunSeconds = 3e-4;
constexpr int kRuns = 4;

template <class F>
double seconds_of(const F& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Seconds of one unit: f(units) does so many on each thread. The best of several runs that are long enough.
template <class F>
double best_seconds(const F& f) {
  int64_t units = 1;
  double seconds = seconds_of([&] { f(units); });
  for (; seconds < kRunSeconds; seconds = seconds_of([&] { f(units); })) units *= 2;
  for (int i = 1; i < kRuns; ++i) seconds = std::min(seconds, seconds_of([&] { f(units); }));
  return seconds / static_cast<double>(units);
}

// Numbers near 1 in BF16 and binary32, and no two bytes that are both zero in INT8.
std::vector<uint8_t> random_factors() {
  std::mt19937 random(20);
  std::vector<uint8_t> bytes(kPeakFactorBytes);
  for (size_t i = 0; i < bytes.size(); i += 2) {
    bytes[i] = static_cast<uint8_t>(random());
    bytes[i + 1] = 0x3f;
  }
  return bytes;
}

}  // namespace

double peak_rate(const KernelTable& table, Type type, int threads) {
  ThreadPool pool(threads);
  const std::vector<uint8_t> factors = random_factors();
  std::vector<AlignedBuffer> sums;
  for (int i = 0; i < threads; ++i) sums.emplace_back(kStripLanes * int64_t{sizeof(float)});
  const double turn = best_seconds([&](int64_t turns) {
    pool.run(threads, [&](int64_t unit, int) { table.peak({type, factors.data(), sums[unit].data()}, 0, turns); });
  });
  const int products = kStripLanes * 4 / element_bytes(type);
  return 2.0 * products * kPeakDots * threads / turn;
}

double read_rate(const KernelTable& table, int64_t bytes, int threads) {
  if (bytes < kReadStep)
    throw std::invalid_argument("Expected at least " + std::to_string(kReadStep) + " bytes to read, found " +
                                std::to_string(bytes) + ".");
  ThreadPool pool(threads);
  const int64_t whole = bytes / kReadStep * kReadStep;
  std::vector<AlignedBuffer> data;
  for (int i = 0; i < threads; ++i) {
    data.emplace_back(whole);
    std::fill_n(data.back().as<uint8_t>(), whole, uint8_t{1});  // pages that nobody wrote are one and the same
  }
  const double pass = best_seconds([&](int64_t passes) {
    pool.run(threads, [&](int64_t unit, int) { table.read_memory({data[unit].as<uint8_t>(), whole}, 0, passes); });
  });
  return static_cast<double>(whole) * threads / pass;
}

}  // namespace openwork
