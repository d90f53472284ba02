// The vocabulary in plain C++: the meaning of every word, and the fallback of every machine. Sixteen lanes are an array. The
// longer words are not inlined: unrolled into every tile they take GCC minutes to compile (four for AArch64).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace openwork {

struct Scalar {
  static constexpr const char* kName = "scalar";
  static constexpr int kLanes = 16;
  // What `dot` subtracts from each activation byte; the packed column sums give it back.
  static constexpr int kActivationOffset = 0;
  // The widest tile of the GEMM: rows, and strips of 16 output channels. An array in memory knows no register limit, but
  // a small tile compiles quickly.
  static constexpr int kStrips = 2;
  static constexpr int kMaxRows = 2;
  static constexpr int kMaxRowsSparse = 2;
  static constexpr int kMaxRowsShared2 = 2;
  static constexpr int kMaxRowsShared4 = 1;
  // Accumulators, in strips, that cover the latency of a dot product: below it INT8 sums are made in several chains.
  static constexpr int kChainedRegisters = 4;
  // Also the forms that a wider shuffle makes needless: here speed does not matter, and tests see all of them.
  static constexpr bool kEveryForm = true;

  // Accumulators of a product with rows in the lanes (kernels/blocks): channels times vectors of rows.
  static constexpr int kBlockRegisters = 8;

  // The tile of the FP32 products: rows, and strips of 16 lanes.
  static constexpr int kFloatRows = 4;
  static constexpr int kFloatStrips = 1;

  struct F32 { float lane[16]; };
  struct I32 { int32_t lane[16]; };
  struct Bytes { uint8_t byte[64]; };

  template <class R, class F>
  static R each(F f) {
    R r;
    for (int i = 0; i < 16; ++i) r.lane[i] = f(i);
    return r;
  }

  static F32 zero() { return set1(0.0f); }
  static F32 set1(float v) { return each<F32>([&](int) { return v; }); }
  static I32 set1_i32(int32_t v) { return each<I32>([&](int) { return v; }); }
  static F32 load(const float* p) { return each<F32>([&](int i) { return p[i]; }); }
  static F32 load_part(const float* p, int n) { return each<F32>([&](int i) { return i < n ? p[i] : 0.0f; }); }
  static I32 load_i32(const int32_t* p) { return each<I32>([&](int i) { return p[i]; }); }
  static void store(float* p, F32 v) { std::memcpy(p, v.lane, sizeof v); }
  static void store_part(float* p, F32 v, int n) { std::memcpy(p, v.lane, n * sizeof(float)); }
  static void store_i32(int32_t* p, I32 v) { std::memcpy(p, v.lane, sizeof v); }
  static void store_u8(uint8_t* p, I32 v) { store_u8_part(p, v, 16); }
  static void store_u8_part(uint8_t* p, I32 v, int n) {
    for (int i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(v.lane[i]);
  }
  // Lanes from n on take `fill`.
  static F32 fill_from(F32 v, int n, float fill) { return each<F32>([&](int i) { return i < n ? v.lane[i] : fill; }); }

  static F32 add(F32 a, F32 b) { return each<F32>([&](int i) { return a.lane[i] + b.lane[i]; }); }
  static F32 sub(F32 a, F32 b) { return each<F32>([&](int i) { return a.lane[i] - b.lane[i]; }); }
  static F32 mul(F32 a, F32 b) { return each<F32>([&](int i) { return a.lane[i] * b.lane[i]; }); }
  static F32 div(F32 a, F32 b) { return each<F32>([&](int i) { return a.lane[i] / b.lane[i]; }); }
  static F32 sqrt(F32 a) { return each<F32>([&](int i) { return std::sqrt(a.lane[i]); }); }
  // False where a lane is NaN.
  static bool all_at_most(F32 a, float bound) {
    bool all = true;
    for (const float v : a.lane) all = all && v <= bound;
    return all;
  }
  [[gnu::noinline]] static F32 fma(F32 a, F32 b, F32 c) {
    return each<F32>([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static F32 min(F32 a, F32 b) { return each<F32>([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; }); }
  static F32 max(F32 a, F32 b) { return each<F32>([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; }); }
  // The smaller of |a| and b; b where a is NaN.
  static F32 min_magnitude(F32 a, F32 b) {
    return each<F32>([&](int i) { return std::fabs(a.lane[i]) < b.lane[i] ? std::fabs(a.lane[i]) : b.lane[i]; });
  }
  static I32 bits(F32 a) {
    I32 r;
    std::memcpy(r.lane, a.lane, sizeof r);
    return r;
  }
  // Each lane is the table's lane that the low four bits of the index name.
  static F32 lookup16(const F32& table, const I32& index) {
    return each<F32>([&](int i) { return table.lane[index.lane[i] & 15]; });
  }
  static F32 rint(F32 a) { return each<F32>([&](int i) { return std::nearbyint(a.lane[i]); }); }
  static I32 add(I32 a, I32 b) { return each<I32>([&](int i) { return a.lane[i] + b.lane[i]; }); }
  static F32 to_f32(I32 a) { return each<F32>([&](int i) { return static_cast<float>(a.lane[i]); }); }
  // Only for values that are whole and in range, as rint and clamping leave them.
  static I32 to_i32(F32 a) { return each<I32>([&](int i) { return static_cast<int32_t>(a.lane[i]); }); }
  // Rounds as rint; NaN and what is below the range become the least integer. Never called above the range.
  static I32 round_i32(F32 a) {
    return each<I32>([&](int i) { return a.lane[i] >= -0x1p31f ? static_cast<int32_t>(std::nearbyint(a.lane[i])) : INT32_MIN; });
  }
  static I32 max(I32 a, I32 b) { return each<I32>([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; }); }
  // a * 2^n for results in the normal range.
  static F32 add_exponent(F32 a, I32 n) {
    return each<F32>([&](int i) {
      uint32_t bits;
      std::memcpy(&bits, &a.lane[i], 4);
      bits += static_cast<uint32_t>(n.lane[i]) << 23;
      float r;
      std::memcpy(&r, &bits, 4);
      return r;
    });
  }
  // a * 2^n for 1 < a < 2^16 and whole n <= 0; where n < -40 anything below 2^-24.
  static F32 times_power(F32 a, F32 n) { return add_exponent(a, to_i32(max(n, set1(-40.0f)))); }
  // The tree of docs/arithmetic.md: lanes j and j + 8, then j + 4, j + 2, j + 1.
  static float reduce_add(F32 v) {
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) v.lane[i] += v.lane[i + half];
    return v.lane[0];
  }
  static float reduce_max(F32 v) {
    float m = v.lane[0];
    for (int i = 1; i < 16; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
  }

  // Lane i of register j becomes lane j of register i.
  [[gnu::noinline]] static void transpose(F32 (&m)[16]) {
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < i; ++j) {
        const float kept = m[i].lane[j];
        m[i].lane[j] = m[j].lane[i];
        m[j].lane[i] = kept;
      }
    }
  }

  // Integer products. `Bytes` is one byte for each of 16 lanes times 4.
  static I32 zero_i32() { return set1_i32(0); }
  static Bytes load_bytes(const void* p) {
    Bytes b;
    std::memcpy(b.byte, p, 64);
    return b;
  }
  template <int width>
  [[gnu::noinline]] static Bytes repeat(const uint8_t* p) {
    Bytes b;
    for (int i = 0; i < 64; i += width) std::memcpy(b.byte + i, p, width);
    return b;
  }
  static Bytes window4(const uint8_t* p) { return repeat<4>(p); }
  static Bytes window8(const uint8_t* p) { return repeat<8>(p); }
  static Bytes window16(const uint8_t* p) { return repeat<16>(p); }
  static Bytes window64(const uint8_t* p) { return load_bytes(p); }
  static constexpr bool kHasShuffle64 = true;
  // Each byte of the result is the byte of the window that the index names.
  [[gnu::noinline]] static Bytes shuffle16(Bytes window, Bytes index) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.byte[i] = window.byte[(i & 48) + (index.byte[i] & 15)];
    return r;
  }
  [[gnu::noinline]] static Bytes shuffle64(Bytes window, Bytes index) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.byte[i] = window.byte[index.byte[i] & 63];
    return r;
  }
  // Two 16-bit numbers a lane, of which each lane of `low` and `high` holds one.
  static I32 pair(I32 low, I32 high) {
    return each<I32>([&](int i) {
      return static_cast<int32_t>((static_cast<uint32_t>(high.lane[i]) << 16) | (static_cast<uint32_t>(low.lane[i]) & 0xffffu));
    });
  }
  // acc[lane] += sum of 2 products of signed pairs, exact.
  [[gnu::noinline]] static I32 dot_pairs(I32 acc, I32 a, I32 b) {
    const auto low = [](int32_t v) { return static_cast<int32_t>(static_cast<int16_t>(v & 0xffff)); };
    return each<I32>(
        [&](int i) { return acc.lane[i] + low(a.lane[i]) * low(b.lane[i]) + (a.lane[i] >> 16) * (b.lane[i] >> 16); });
  }
  // Turns a window of activations into what `dot` multiplies: kActivationOffset less.
  static Bytes flip(Bytes v) { return v; }
  // Stored indices of fewer bits, lowest bits first. Two bits each, of four positions in the first and in the second half of
  // 8 bytes:
  static constexpr bool kHasExpand = true;
  [[gnu::noinline]] static Bytes expand2(const uint8_t* p) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.byte[i] = static_cast<uint8_t>(((p[i / 4] >> (i % 4 * 2)) & 3) | (i % 4 / 2 * 4));
    return r;
  }
  // Four bits each, of 16 positions.
  [[gnu::noinline]] static Bytes expand4(const uint8_t* p) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.byte[i] = (p[i / 2] >> (i % 2 * 4)) & 15;
    return r;
  }
  // Lane i of a and b become lanes 2 i and 2 i + 1 of both together.
  template <class Lanes>
  [[gnu::noinline]] static void interleave(Lanes& a, Lanes& b) {
    const Lanes x = a, y = b;
    for (int i = 0; i < 16; ++i) {
      a.lane[i] = i % 2 ? y.lane[i / 2] : x.lane[i / 2];
      b.lane[i] = i % 2 ? y.lane[8 + i / 2] : x.lane[8 + i / 2];
    }
  }
  static F32 floats(Bytes v) {
    F32 r;
    std::memcpy(r.lane, v.byte, 64);
    return r;
  }
  // acc += x[1] w[1], then acc += x[0] w[0], of the two BF16 in each lane.
  [[gnu::noinline]] static F32 dot_bf16(F32 acc, Bytes x, Bytes w) {
    const auto number = [](const Bytes& from, int i) {
      const uint32_t bits = static_cast<uint32_t>(from.byte[2 * i]) << 16 | static_cast<uint32_t>(from.byte[2 * i + 1]) << 24;
      float v;
      std::memcpy(&v, &bits, 4);
      return v;
    };
    return each<F32>([&](int i) {
      const float sum = std::fma(number(x, 2 * i + 1), number(w, 2 * i + 1), acc.lane[i]);
      return std::fma(number(x, 2 * i), number(w, 2 * i), sum);
    });
  }
  static void store_bytes(void* p, const Bytes& v) { std::memcpy(p, v.byte, 64); }
  // Lane i of register j becomes lane j of register i.
  static void transpose(Bytes (&m)[16]) {
    const auto swap = [](uint8_t* a, uint8_t* b) {
      uint8_t kept[4];
      std::memcpy(kept, a, 4);
      std::memcpy(a, b, 4);
      std::memcpy(b, kept, 4);
    };
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < i; ++j) swap(m[i].byte + 4 * j, m[j].byte + 4 * i);
  }
  // Kernel taps in the lanes: of kStrips * 16 channels from x[tap] + at on four taps of a byte, or two of a 16-bit number.
  static void taps4(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    for (int i = 0; i < 64 * kStrips; ++i) to[i / 64].byte[i % 64] = x[i % 4][at + i / 4];
  }
  static void taps2(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    for (int i = 0; i < 32 * kStrips; ++i) std::memcpy(to[i / 32].byte + 2 * (i % 32), x[i % 2] + at + i / 2 * 2, 2);
  }
  // acc[lane] += sum of 4 products of an unsigned activation and a signed weight, exact.
  [[gnu::noinline]] static I32 dot(I32 acc, Bytes activation, Bytes weight) {
    return each<I32>([&](int i) {
      int32_t sum = acc.lane[i];
      for (int j = 4 * i; j < 4 * i + 4; ++j) sum += activation.byte[j] * static_cast<int8_t>(weight.byte[j]);
      return sum;
    });
  }
  // A vector that the compiler must take for a new one (kernels/peak.h).
  template <class T>
  static void hide(T& v) {
    asm volatile("" : "+m"(v));
  }

  // What epilogues and activations need.
  static I32 load_u8(const uint8_t* p) { return load_u8_part(p, 16); }
  static I32 load_u8_part(const uint8_t* p, int n) { return each<I32>([&](int i) { return i < n ? p[i] : 0; }); }
  static F32 load_bf16(const uint16_t* p) { return load_bf16_part(p, 16); }
  static F32 load_bf16_part(const uint16_t* p, int n) {
    return as_floats(each<I32>([&](int i) { return static_cast<int32_t>(i < n ? static_cast<uint32_t>(p[i]) << 16 : 0); }));
  }
  // To the nearest, ties to even; NaN stays NaN.
  static void store_bf16(uint16_t* p, F32 v) { store_bf16_part(p, v, 16); }
  static void store_bf16_part(uint16_t* p, F32 v, int n) {
    const I32 b = bits(v);
    for (int i = 0; i < n && i < 16; ++i) {
      const auto u = static_cast<uint32_t>(b.lane[i]);
      p[i] = static_cast<uint16_t>(v.lane[i] != v.lane[i] ? (u >> 16) | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
  }
  // v + zero_point, clamped to a byte, of four vectors in their order. v + zero_point may lie outside of INT32's range.
  static Bytes pack_u8(const I32 (&v)[4], int32_t zero_point) {
    Bytes r;
    for (int i = 0; i < 64; ++i) {
      const int64_t q = int64_t{v[i / 16].lane[i % 16]} + zero_point;
      r.byte[i] = static_cast<uint8_t>(q < 0 ? 0 : q > 255 ? 255 : q);
    }
    return r;
  }
  static Bytes set1_u8(uint8_t v) {
    Bytes r;
    std::memset(r.byte, v, 64);
    return r;
  }
  template <class F>
  static Bytes each_byte(F f) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.byte[i] = f(i);
    return r;
  }
  static Bytes min_u8(Bytes a, Bytes b) { return each_byte([&](int i) { return a.byte[i] < b.byte[i] ? a.byte[i] : b.byte[i]; }); }
  static Bytes max_u8(Bytes a, Bytes b) { return each_byte([&](int i) { return a.byte[i] > b.byte[i] ? a.byte[i] : b.byte[i]; }); }
  static Bytes bit_xor(Bytes a, Bytes b) { return each_byte([&](int i) { return static_cast<uint8_t>(a.byte[i] ^ b.byte[i]); }); }
  static Bytes lookup256(Bytes index, const uint8_t* table) { return each_byte([&](int i) { return table[index.byte[i]]; }); }
  // The bytes as `rows` rows of 64 / rows: the same row in each, and each row to its place.
  template <int rows>
  static Bytes repeat_rows(const uint8_t* p) { return repeat<64 / rows>(p); }
  template <int rows>
  static void store_rows(uint8_t* p, int64_t stride, Bytes v) {
    for (int r = 0; r < rows; ++r) std::memcpy(p + r * stride, v.byte + 64 / rows * r, 64 / rows);
  }
  // In each quarter of 16 bytes: those of a and of b in turns, the first 16 of them in a, the others in b.
  static void zip_quarters(Bytes& a, Bytes& b) {
    const Bytes x = a, y = b;
    for (int i = 0; i < 64; ++i) {
      const int from = (i & 48) + i % 16 / 2;
      a.byte[i] = (i % 2 ? y : x).byte[from];
      b.byte[i] = (i % 2 ? y : x).byte[from + 8];
    }
  }
  // Sums of 64 bytes each, of at most kMostBytesSummed bytes, and as 64 lanes in four vectors, in the bytes' order.
  struct Sums { uint16_t word[64]; };
  static Sums zero_sums() { return {}; }
  static void add_bytes(Sums& s, const Bytes& v) {
    for (int i = 0; i < 64; ++i) s.word[i] = static_cast<uint16_t>(s.word[i] + v.byte[i]);
  }
  static void widen(const Sums& s, I32 (&to)[4]) {
    for (int i = 0; i < 64; ++i) to[i / 16].lane[i % 16] = s.word[i];
  }
  static Bytes load_bytes_part(const uint8_t* p, int n) { return each_byte([&](int i) { return i < n ? p[i] : uint8_t{0}; }); }
  static void store_bytes_part(uint8_t* p, Bytes v, int n) { std::memcpy(p, v.byte, n); }
  static F32 abs(F32 a) { return each<F32>([&](int i) { return std::fabs(a.lane[i]); }); }
  static F32 copy_sign(F32 magnitude, F32 sign) { return each<F32>([&](int i) { return std::copysign(magnitude.lane[i], sign.lane[i]); }); }
  // Of the bits, zeros come in.
  template <int n>
  static I32 shift_right(I32 a) { return each<I32>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) >> n); }); }
  // The same bits.
  static F32 as_floats(I32 a) {
    F32 r;
    std::memcpy(r.lane, a.lane, sizeof r);
    return r;
  }
};

}  // namespace openwork
