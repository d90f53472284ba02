// The operators on images and on blocks of bytes, on every instruction set against plain loops: the same bits. Inputs end where
// readable memory does, but for the bytes that an operator says it reads ahead; outputs end where writable memory does.
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "test/guarded.h"
#include "test/harness.h"
#include "test/tables.h"

namespace openwork {
namespace {

constexpr int64_t kChannels[] = {1, 3, 17, 64, 100, 300};

struct Random {
  std::mt19937 engine;

  int64_t below(int64_t n) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(n)); }
  template <class T>
  std::vector<T> values(int64_t n) {
    std::vector<T> made(static_cast<size_t>(n));
    for (auto& v : made) v = std::is_same_v<T, uint8_t> ? static_cast<T>(below(256)) : static_cast<T>(below(4001) - 2000) / static_cast<T>(97);
    return made;
  }
};

template <class T>
struct Memory {
  Guarded guarded;
  Memory(const std::vector<T>& v, size_t slack) : guarded(v.data(), v.size() * sizeof(T), slack) {}
  T* data() const { return reinterpret_cast<T*>(guarded.data()); }
};

uint8_t plain_quantize(float v, const Quantizer& q) {
  v = std::nearbyint(v * q.inverse_scale);
  v = v > static_cast<float>(-q.zero_point) ? v : static_cast<float>(-q.zero_point);
  v = v < static_cast<float>(255 - q.zero_point) ? v : static_cast<float>(255 - q.zero_point);
  return static_cast<uint8_t>(static_cast<int>(v) + q.zero_point);
}

// Runs on every instruction set, whole and in three parts, into memory that was something else.
template <class T>
void expect_same(int64_t units, const std::vector<T>& expected, const std::string& what,
                 const std::function<void(const KernelTable&, T*, int64_t, int64_t)>& run) {
  for (const KernelTable* table : test::own_tables())
    for (const int64_t parts : {1, 3}) {
      const Memory<T> y(std::vector<T>(expected.size(), T{77}), 0);
      for (int64_t part = 0; part < parts; ++part) run(*table, y.data(), units * part / parts, units * (part + 1) / parts);
      CHECK_SAY(std::memcmp(y.data(), expected.data(), expected.size() * sizeof(T)) == 0,
                what + " in " + std::to_string(parts) + " on " + table->isa);
    }
}

// A window of 3 by 2 pixels on images of 5 by 7, cut at three sides.
struct Image {
  static constexpr int64_t kBatch = 2, kHeight = 5, kWidth = 7;
  std::vector<PoolSpan> rows{{0, 2, 3}, {1, 3, 3}, {3, 2, 2}}, columns{{0, 1, 2}, {1, 2, 2}, {3, 2, 2}, {0, 0, 1}};
  int64_t channels;

  int64_t pixels() const { return kBatch * kHeight * kWidth; }
  int64_t windows() const { return kBatch * static_cast<int64_t>(rows.size() * columns.size()); }
  // f(x, y) for each window's channels: places of the taps in x, one place in y; then count of each.
  template <class F>
  void each(const F& f) const {
    int64_t at = 0;
    for (int64_t b = 0; b < kBatch; ++b)
      for (const PoolSpan& row : rows)
        for (const PoolSpan& column : columns)
          for (int64_t c = 0; c < channels; ++c) {
            std::vector<int64_t> taps;
            for (int64_t r = 0; r < row.taps; ++r)
              for (int64_t s = 0; s < column.taps; ++s)
                taps.push_back(((b * kHeight + row.first + r) * kWidth + column.first + s) * channels + c);
            f(taps, at++, row.counted * column.counted);
          }
  }
  PoolArgs args(const void* x, bool bytes, int64_t parts) const {
    PoolArgs a;
    a.x = x;
    a.x_bytes = a.y_bytes = bytes;
    a.height = kHeight, a.width = kWidth, a.channels = channels;
    a.out_height = static_cast<int64_t>(rows.size()), a.out_width = static_cast<int64_t>(columns.size());
    a.y_stride = channels;
    a.row_step = kWidth * channels, a.column_step = channels;
    a.rows = rows.data(), a.columns = columns.data();
    a.part_channels = parts == 1 ? (channels + 63) / 64 * 64 : 64;
    a.parts = (channels + a.part_channels - 1) / a.part_channels;
    return a;
  }
};

template <class T>
void check_max(int64_t channels, int64_t parts) {
  Image image;
  image.channels = channels;
  Random random{std::mt19937(static_cast<unsigned>(channels))};
  auto x = random.values<T>(image.pixels() * channels);
  if constexpr (std::is_same_v<T, float>) x[0] = NAN, x[x.size() / 2] = -INFINITY;
  const Memory<T> from(x, read_ahead(sizeof(T)));
  const bool bytes = std::is_same_v<T, uint8_t>;
  std::vector<T> expected(static_cast<size_t>(image.windows() * channels));
  image.each([&](const std::vector<int64_t>& taps, int64_t at, int64_t) {
    T most = bytes ? T{0} : static_cast<T>(-INFINITY);
    for (const int64_t tap : taps)
      if (x[static_cast<size_t>(tap)] > most) most = x[static_cast<size_t>(tap)];
    expected[static_cast<size_t>(at)] = most;
  });
  PoolArgs a = image.args(from.data(), bytes, parts);
  const int64_t units = Image::kBatch * a.out_height * a.parts;
  expect_same<T>(units, expected, "max pool of " + std::to_string(channels), [&](auto& table, T* y, int64_t i, int64_t j) {
    a.y = y;
    table.max_pool(a, i, j);
  });
}

constexpr Quantizer kQuantizer{3.7f, 90};

template <class T, class Y>
void check_average(int64_t channels, int64_t parts) {
  Image image;
  image.channels = channels;
  Random random{std::mt19937(static_cast<unsigned>(channels))};
  const auto x = random.values<T>(image.pixels() * channels);
  const Memory<T> from(x, read_ahead(sizeof(T)));
  PoolArgs a = image.args(from.data(), std::is_same_v<T, uint8_t>, parts);
  a.y_bytes = std::is_same_v<Y, uint8_t>;
  a.x_scale = 0.31f, a.x_zero_point = 120, a.quantizer = kQuantizer;
  std::vector<Y> expected(static_cast<size_t>(image.windows() * channels));
  image.each([&](const std::vector<int64_t>& taps, int64_t at, int64_t counted) {
    float v = 0;
    if constexpr (std::is_same_v<T, uint8_t>) {
      int64_t sum = 0;
      for (const int64_t tap : taps) sum += x[static_cast<size_t>(tap)] - 120;
      v = static_cast<float>(sum) * (0.31f / static_cast<float>(counted));
    } else {
      for (const int64_t tap : taps) v += x[static_cast<size_t>(tap)];
      v /= static_cast<float>(counted);
    }
    if constexpr (std::is_same_v<Y, uint8_t>) expected[static_cast<size_t>(at)] = plain_quantize(v, kQuantizer);
    else expected[static_cast<size_t>(at)] = v;
  });
  const int64_t units = Image::kBatch * a.out_height * a.parts;
  expect_same<Y>(units, expected, "average pool of " + std::to_string(channels), [&](auto& table, Y* y, int64_t i, int64_t j) {
    a.y = y;
    table.average_pool(a, i, j);
  });
}

template <class T, class Y>
void check_transpose(int64_t batch, int64_t rows, int64_t columns) {
  Random random{std::mt19937(static_cast<unsigned>(rows * 1000 + columns))};
  const auto x = random.values<T>(batch * rows * columns);
  const Memory<T> from(x, 0);
  TransposeArgs a;
  a.x = from.data();
  a.rows = rows, a.columns = columns;
  a.x_bytes = std::is_same_v<T, uint8_t>, a.y_bytes = std::is_same_v<Y, uint8_t>;
  a.quantizer = kQuantizer;
  std::vector<Y> expected;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t r = 0; r < rows; ++r) {
        const T v = x[static_cast<size_t>((b * rows + r) * columns + c)];
        if constexpr (std::is_same_v<T, Y>) expected.push_back(v);
        else expected.push_back(plain_quantize(v, kQuantizer));
      }
  const std::string what = "transpose of " + std::to_string(rows) + " by " + std::to_string(columns);
  expect_same<Y>(batch * a.row_tiles() * a.column_tiles(), expected, what, [&](auto& table, Y* y, int64_t i, int64_t j) {
    a.y = y;
    table.transpose_matrix(a, i, j);
  });
}

// One side of a binary operator: numbers, and how they lie in memory.
struct Side {
  std::vector<float> numbers;
  std::vector<uint8_t> bytes;
  BinarySide side;

  Side(Random& random, bool quantized, int64_t count, float scale, int32_t zero_point) : side{nullptr, quantized, scale, zero_point} {
    if (!quantized) numbers = random.values<float>(count);
    if (!quantized) return;
    bytes = random.values<uint8_t>(count);
    for (const uint8_t q : bytes) numbers.push_back(static_cast<float>(q - zero_point) * scale);
  }
};

float activated(float v, const ActivationFunction& f) {
  if (f.kind == Activation::relu) return v > 0 ? v : 0;
  if (f.kind != Activation::clip) return v;
  v = v > f.alpha ? v : f.alpha;
  return v < f.beta ? v : f.beta;
}

struct BinaryProblem {
  bool a_bytes, b_bytes, y_bytes, bounded;
  BinaryArgs::Spread spread;
  ActivationFunction activation;
};

template <class Y>
void check_binary(const BinaryProblem& p, int64_t rows, int64_t width, unsigned seed) {
  using Spread = BinaryArgs::Spread;
  Random random{std::mt19937(seed)};
  constexpr int64_t kRepeat = 3;
  const int64_t count = rows * width;
  Side a(random, p.a_bytes, count, 0.21f, 7), b(random, p.b_bytes, p.spread == Spread::one ? 1 : p.spread == Spread::rows ? (rows + kRepeat - 1) / kRepeat * width : count, 0.17f, 200);
  if (!p.a_bytes) a.numbers[0] = NAN, a.numbers[a.numbers.size() - 1] = 1e30f;
  const Memory<float> a_floats(a.numbers, 0), b_floats(b.numbers, 0);
  const Memory<uint8_t> a_bytes(a.bytes, 0), b_bytes(b.bytes, 0);
  BinaryArgs args;
  args.a = a.side, args.b = b.side;
  args.a.data = p.a_bytes ? static_cast<const void*>(a_bytes.data()) : a_floats.data();
  args.b.data = p.b_bytes ? static_cast<const void*>(b_bytes.data()) : b_floats.data();
  args.spread = p.spread;
  args.count = count;
  if (p.spread == Spread::rows) args.unit = args.y_stride = width, args.repeat = kRepeat;
  args.y_bytes = p.y_bytes, args.quantizer = kQuantizer, args.bounded = p.bounded;
  args.activation = p.activation;
  if (p.activation.kind != Activation::none) args.low = plain_quantize(activated(-1e30f, p.activation), kQuantizer);
  if (p.activation.kind == Activation::clip) args.high = plain_quantize(p.activation.beta, kQuantizer);
  for (const bool product : {false, true}) {
    std::vector<Y> expected;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = p.spread == Spread::one ? 0 : p.spread == Spread::rows ? i / width / kRepeat * width + i % width : i;
      const float x = a.numbers[static_cast<size_t>(i)], y = b.numbers[static_cast<size_t>(at)];
      const float v = activated(product ? x * y : x + y, p.activation);
      if constexpr (std::is_same_v<Y, uint8_t>) expected.push_back(plain_quantize(v, kQuantizer));
      else expected.push_back(v);
    }
    const std::string what = "binary " + std::to_string(seed) + (product ? " product" : " sum");
    expect_same<Y>((count + args.unit - 1) / args.unit, expected, what, [&](auto& table, Y* y, int64_t i, int64_t j) {
      args.y = y;
      product ? table.multiply(args, i, j) : table.add(args, i, j);
    });
  }
}

}  // namespace

TEST(max_pool_equals_plain_loops) {
  for (const int64_t channels : kChannels)
    for (const int64_t parts : {1, 2}) {
      check_max<uint8_t>(channels, parts);
      check_max<float>(channels, parts);
    }
}

TEST(average_pool_equals_plain_loops) {
  for (const int64_t channels : kChannels)
    for (const int64_t parts : {1, 2}) {
      check_average<uint8_t, uint8_t>(channels, parts);
      check_average<uint8_t, float>(channels, parts);
      check_average<float, uint8_t>(channels, parts);
      check_average<float, float>(channels, parts);
    }
}

// More bytes than 16 bits hold the sum of.
TEST(average_pool_of_large_windows_is_exact) {
  for (const int64_t width : {256, 257, 258, 70000}) {
    const int64_t channels = 70;
    std::vector<uint8_t> x(static_cast<size_t>(width * channels), 255);
    x[0] = 3;
    const Memory<uint8_t> from(x, read_ahead(1));
    const PoolSpan row{0, 1, 1}, column{0, width, width};
    PoolArgs a;
    a.x = from.data();
    a.x_bytes = true;
    a.width = width, a.channels = a.y_stride = channels, a.part_channels = 128;
    a.row_step = width * channels, a.column_step = channels;
    a.rows = &row, a.columns = &column;
    a.x_scale = 1.0f, a.x_zero_point = 1;
    const float factor = 1.0f / static_cast<float>(width);
    std::vector<float> expected(static_cast<size_t>(channels), static_cast<float>(254 * width) * factor);
    expected[0] = static_cast<float>(254 * width - 252) * factor;
    expect_same<float>(1, expected, "mean of " + std::to_string(width), [&](auto& table, float* y, int64_t i, int64_t j) {
      a.y = y;
      table.average_pool(a, i, j);
    });
  }
}

TEST(transposed_matrices_equal_plain_loops) {
  for (const int64_t rows : {1, 2, 3, 4, 5, 16, 17, 64, 100, 300})
    for (const int64_t columns : {1, 3, 17, 49, 64, 65, 66, 67, 100, 300, 1030}) {
      check_transpose<uint8_t, uint8_t>(2, rows, columns);
      check_transpose<float, float>(2, rows, columns);
      check_transpose<float, uint8_t>(2, rows, columns);
    }
}

TEST(p_relu_equals_plain_loops) {
  for (const int64_t width : kChannels) {
    constexpr int64_t kRows = 5;
    Random random{std::mt19937(static_cast<unsigned>(width))};
    const auto x = random.values<float>(kRows * width), slope = random.values<float>(width);
    const Memory<float> from(x, 0), by(slope, 0);
    std::vector<float> expected;
    for (size_t i = 0; i < x.size(); ++i) {
      const float low = 0 < x[i] ? 0 : x[i], high = x[i] > 0 ? x[i] : 0;
      expected.push_back(std::fma(slope[i % static_cast<size_t>(width)], low, high));
    }
    PReluArgs a{from.data(), by.data(), width, nullptr};
    expect_same<float>(kRows, expected, "p_relu of " + std::to_string(width), [&](auto& table, float* y, int64_t i, int64_t j) {
      a.y = y;
      table.p_relu(a, i, j);
    });
  }
}

// Where all elements are one number, its exponential is 1 and each share is 1 / width; another one, far below, has none.
TEST(softmax_shares_among_the_largest) {
  for (const int64_t width : {1, 2, 15, 16, 17, 100, 1000}) {
    constexpr int64_t kRows = 4;
    std::vector<float> x(static_cast<size_t>(kRows * width), -30.5f);
    if (width > 1)
      for (int64_t r = 0; r < kRows; ++r) x[static_cast<size_t>(r * width + width / 2)] = -1e4f;
    const Memory<float> from(x, 0);
    const float share = 1.0f / static_cast<float>(width > 1 ? width - 1 : 1);
    std::vector<uint8_t> expected;
    for (const float v : x) expected.push_back(v > -1e4f ? plain_quantize(share, {255.0f, 1}) : uint8_t{1});
    const Memory<float> scratch(std::vector<float>(static_cast<size_t>(width)), 0);
    SoftmaxArgs a{from.data(), width, nullptr, true, {255.0f, 1}, scratch.data()};
    expect_same<uint8_t>(kRows, expected, "softmax of " + std::to_string(width), [&](auto& table, uint8_t* y, int64_t i, int64_t j) {
      a.y = y;
      table.softmax(a, i, j);
    });
  }
}

TEST(sums_and_products_of_bytes_and_floats_equal_plain_loops) {
  using Spread = BinaryArgs::Spread;
  const ActivationFunction activations[] = {{}, {Activation::relu}, {Activation::clip, -1.0f, 6.0f}};
  unsigned seed = 0;
  for (const int kinds : {0, 1, 2, 3})
    for (const Spread spread : {Spread::none, Spread::rows, Spread::one})
      for (const auto& activation : activations)
        for (const int64_t width : {1, 17, 64, 100}) {
          const bool a = kinds & 1, b = spread != Spread::one && kinds & 2;
          check_binary<uint8_t>({a, b, true, a && b, spread, activation}, 50, width, ++seed);
          check_binary<float>({a, b, false, false, spread, activation}, 50, width, ++seed);
        }
}

}  // namespace openwork
