// The vocabulary on AArch64 with the dot product extension (Armv8.2-A FEAT_DotProd): four registers of 128 bits are 16
// lanes.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace openwork {

struct Neon {
  static constexpr const char* kName = "neon";
  static constexpr int kLanes = 16;
  // sdot multiplies signed by signed: the windows arrive with their top bit flipped, which subtracts 128.
  static constexpr int kActivationOffset = 128;
  // 32 registers. A row's accumulators of one strip take four and a strip's weights four. Dense: 6 rows leave 4 for the
  // window and the constant that flips it. Shuffled: the strip's indices take four more and the window up to four, which
  // tbl wants side by side, so that 4 rows (16 + 12) leave 4 for the picked bytes and the constant.
  static constexpr int kStrips = 1;
  static constexpr int kMaxRows = 6;
  static constexpr int kMaxRowsSparse = 4;
  // Two strips that share their picked bytes: 2 rows of 8 accumulators, 8 weights, 4 indices, and 4 left again.
  static constexpr int kMaxRowsShared2 = 2;
  static constexpr int kMaxRowsShared4 = 0;  // four strips' weights and one row's accumulators would fill all registers
  // In strips of four registers: 16 sdot cover four cycles of latency on four ports.
  static constexpr int kChainedRegisters = 4;
  // tbl from four registers takes up to four times as long as from one: windows of 8 and 16 bytes are worth having.
  static constexpr bool kEveryForm = true;

  // Accumulators of a product with rows in the lanes (kernels/blocks): channels times vectors of rows.
  static constexpr int kBlockRegisters = 4;

  // 4 rows of 4 accumulators cover four cycles of latency on four ports.
  static constexpr int kFloatRows = 4;
  static constexpr int kFloatStrips = 1;

  struct F32 { float32x4_t q[4]; };
  struct I32 { int32x4_t q[4]; };
  struct Bytes { uint8x16_t q[4]; };
  // The same four bytes in every lane, which sdot repeats itself: a vector operation less for each row and step.
  struct Quad {
    uint8x8_t d;
    operator Bytes() const { return same(vreinterpretq_u8_u32(vdupq_lane_u32(vreinterpret_u32_u8(d), 0))); }
  };

  // f of each of the four registers.
  template <class R, class F>
  [[gnu::always_inline]] static R each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }

  static F32 zero() { return set1(0.0f); }
  static F32 set1(float v) { return each<F32>([&](int) { return vdupq_n_f32(v); }); }
  static I32 set1_i32(int32_t v) { return each<I32>([&](int) { return vdupq_n_s32(v); }); }
  static F32 load(const float* p) { return each<F32>([&](int i) { return vld1q_f32(p + 4 * i); }); }
  static F32 load_part(const float* p, int n) {
    float lanes[16] = {};
    for (int i = 0; i < n && i < 16; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  static I32 load_i32(const int32_t* p) { return each<I32>([&](int i) { return vld1q_s32(p + 4 * i); }); }
  static void store(float* p, F32 v) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.q[i]);
  }
  static void store_part(float* p, F32 v, int n) {
    float lanes[16];
    store(lanes, v);
    for (int i = 0; i < n && i < 16; ++i) p[i] = lanes[i];
  }
  static void store_i32(int32_t* p, I32 v) {
    for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, v.q[i]);
  }
  static void store_u8(uint8_t* p, I32 v) {
    const auto words = [&](int i) {
      return vcombine_u16(vmovn_u32(vreinterpretq_u32_s32(v.q[i])), vmovn_u32(vreinterpretq_u32_s32(v.q[i + 1])));
    };
    vst1q_u8(p, vcombine_u8(vmovn_u16(words(0)), vmovn_u16(words(2))));
  }
  static void store_u8_part(uint8_t* p, I32 v, int n) {
    uint8_t bytes[16];
    store_u8(bytes, v);
    for (int i = 0; i < n && i < 16; ++i) p[i] = bytes[i];
  }
  static F32 fill_from(F32 v, int n, float fill) {
    const int32x4_t lane = {0, 1, 2, 3};
    return each<F32>([&](int i) { return vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n - 4 * i)), v.q[i], vdupq_n_f32(fill)); });
  }

  static F32 add(F32 a, F32 b) { return each<F32>([&](int i) { return vaddq_f32(a.q[i], b.q[i]); }); }
  static F32 sub(F32 a, F32 b) { return each<F32>([&](int i) { return vsubq_f32(a.q[i], b.q[i]); }); }
  static F32 mul(F32 a, F32 b) { return each<F32>([&](int i) { return vmulq_f32(a.q[i], b.q[i]); }); }
  static F32 div(F32 a, F32 b) { return each<F32>([&](int i) { return vdivq_f32(a.q[i], b.q[i]); }); }
  static F32 sqrt(F32 a) { return each<F32>([&](int i) { return vsqrtq_f32(a.q[i]); }); }
  static bool all_at_most(F32 a, float bound) {
    const auto at_most = [&](int i) { return vcleq_f32(a.q[i], vdupq_n_f32(bound)); };
    return vminvq_u32(vandq_u32(vandq_u32(at_most(0), at_most(1)), vandq_u32(at_most(2), at_most(3)))) != 0;
  }
  static F32 fma(F32 a, F32 b, F32 c) { return each<F32>([&](int i) { return vfmaq_f32(c.q[i], a.q[i], b.q[i]); }); }
  // Not fmin and fmax, which know a NaN and a sign of zero that x86 does not.
  static F32 min(F32 a, F32 b) { return each<F32>([&](int i) { return vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); }); }
  static F32 max(F32 a, F32 b) { return each<F32>([&](int i) { return vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); }); }
  static F32 min_magnitude(F32 a, F32 b) {
    return min(each<F32>([&](int i) { return vabsq_f32(a.q[i]); }), b);
  }
  static I32 bits(F32 a) { return each<I32>([&](int i) { return vreinterpretq_s32_f32(a.q[i]); }); }
  // tbl reads bytes: four for each lane, from 4 * (index & 15) on.
  static F32 lookup16(F32 table, I32 index) {
    const uint8x16x4_t bytes = four([&](int i) { return vreinterpretq_u8_f32(table.q[i]); });
    const uint32x4_t first = vdupq_n_u32(0x03020100), step = vdupq_n_u32(0x04040404);
    return each<F32>([&](int i) {
      const uint32x4_t lane = vandq_u32(vreinterpretq_u32_s32(index.q[i]), vdupq_n_u32(15));
      return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_u32(vmlaq_u32(first, lane, step))));
    });
  }
  static F32 rint(F32 a) { return each<F32>([&](int i) { return vrndnq_f32(a.q[i]); }); }
  static I32 add(I32 a, I32 b) { return each<I32>([&](int i) { return vaddq_s32(a.q[i], b.q[i]); }); }
  static F32 to_f32(I32 a) { return each<F32>([&](int i) { return vcvtq_f32_s32(a.q[i]); }); }
  static I32 to_i32(F32 a) { return each<I32>([&](int i) { return vcvtq_s32_f32(a.q[i]); }); }
  // The conversion makes 0 of NaN where the least integer is wanted: fmaxnm takes the number instead of the NaN.
  static I32 round_i32(F32 a) {
    return each<I32>([&](int i) { return vcvtnq_s32_f32(vmaxnmq_f32(a.q[i], vdupq_n_f32(-0x1p31f))); });
  }
  static I32 max(I32 a, I32 b) { return each<I32>([&](int i) { return vmaxq_s32(a.q[i], b.q[i]); }); }
  static F32 add_exponent(F32 a, I32 n) {
    return each<F32>([&](int i) {
      return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a.q[i]), vshlq_n_s32(n.q[i], 23)));
    });
  }
  static F32 times_power(F32 a, F32 n) { return add_exponent(a, to_i32(max(n, set1(-40.0f)))); }
  static float reduce_add(F32 v) {
    const float32x4_t quarter = vaddq_f32(vaddq_f32(v.q[0], v.q[2]), vaddq_f32(v.q[1], v.q[3]));
    const float32x2_t pair = vadd_f32(vget_low_f32(quarter), vget_high_f32(quarter));
    return vget_lane_f32(pair, 0) + vget_lane_f32(pair, 1);
  }
  static float reduce_max(F32 v) {
    const auto larger = [](float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); };
    const float32x4_t quarter = larger(larger(v.q[0], v.q[2]), larger(v.q[1], v.q[3]));
    const float32x2_t low = vget_low_f32(quarter), high = vget_high_f32(quarter);
    const float32x2_t pair = vbsl_f32(vcgt_f32(low, high), low, high);
    const float a = vget_lane_f32(pair, 0), b = vget_lane_f32(pair, 1);
    return a > b ? a : b;
  }

  static void transpose(F32 (&m)[16]) {
    F32 t[16];
    // Row 4 j + k of the result's column block i is column k of the block (rows 4 i to 4 i + 3, registers j).
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) {
        const float32x4_t a = m[4 * i].q[j], b = m[4 * i + 1].q[j], c = m[4 * i + 2].q[j], d = m[4 * i + 3].q[j];
        const auto pairs = [](float32x4_t v) { return vreinterpretq_f64_f32(v); };
        const float64x2_t even_ab = pairs(vtrn1q_f32(a, b)), odd_ab = pairs(vtrn2q_f32(a, b));
        const float64x2_t even_cd = pairs(vtrn1q_f32(c, d)), odd_cd = pairs(vtrn2q_f32(c, d));
        t[4 * j].q[i] = vreinterpretq_f32_f64(vtrn1q_f64(even_ab, even_cd));
        t[4 * j + 1].q[i] = vreinterpretq_f32_f64(vtrn1q_f64(odd_ab, odd_cd));
        t[4 * j + 2].q[i] = vreinterpretq_f32_f64(vtrn2q_f64(even_ab, even_cd));
        t[4 * j + 3].q[i] = vreinterpretq_f32_f64(vtrn2q_f64(odd_ab, odd_cd));
      }
    for (int i = 0; i < 16; ++i) m[i] = t[i];
  }

  static I32 pair(I32 low, I32 high) { return each<I32>([&](int i) { return vsliq_n_s32(low.q[i], high.q[i], 16); }); }
  static I32 dot_pairs(I32 acc, I32 a, I32 b) {
    return each<I32>([&](int i) {
      const int16x8_t x = vreinterpretq_s16_s32(a.q[i]), y = vreinterpretq_s16_s32(b.q[i]);
      return vaddq_s32(acc.q[i], vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
    });
  }

  static I32 zero_i32() { return set1_i32(0); }
  static Bytes load_bytes(const void* p) {
    return each<Bytes>([&](int i) { return vld1q_u8(static_cast<const uint8_t*>(p) + 16 * i); });
  }
  static Quad window4(const uint8_t* p) { return {vreinterpret_u8_u32(vset_lane_u32(load<uint32_t>(p), vdup_n_u32(0), 0))}; }
  // A window of 8 or 16 bytes is the same in all four registers: the compiler keeps one. No index reaches behind the 8 bytes.
  static Bytes window8(const uint8_t* p) { return same(vcombine_u8(vld1_u8(p), vdup_n_u8(0))); }
  static Bytes window16(const uint8_t* p) { return same(vld1q_u8(p)); }
  static Bytes window64(const uint8_t* p) { return load_bytes(p); }
  // The activations of `dot`.
  static Quad flip(Quad v) { return {veor_u8(v.d, vdup_n_u8(0x80))}; }
  static Bytes flip(Bytes v) {
    return each<Bytes>([&](int i) { return veorq_u8(v.q[i], vdupq_n_u8(0x80)); });
  }
  static constexpr bool kHasShuffle64 = true;
  static Bytes shuffle16(Bytes window, Bytes index) {
    return each<Bytes>([&](int i) { return vqtbl1q_u8(window.q[i], index.q[i]); });
  }
  static Bytes shuffle64(Bytes window, Bytes index) {
    const uint8x16x4_t bytes = four([&](int i) { return window.q[i]; });
    return each<Bytes>([&](int i) { return vqtbl4q_u8(bytes, index.q[i]); });
  }
  static I32 dot(I32 acc, Quad activation, Bytes weight) {
    return each<I32>([&](int i) {
      return vdotq_lane_s32(acc.q[i], vreinterpretq_s8_u8(weight.q[i]), vreinterpret_s8_u8(activation.d), 0);
    });
  }
  static I32 dot(I32 acc, Bytes activation, Quad weight) { return dot(acc, weight, activation); }
  static I32 dot(I32 acc, Bytes activation, Bytes weight) {
    return each<I32>([&](int i) {
      return vdotq_s32(acc.q[i], vreinterpretq_s8_u8(activation.q[i]), vreinterpretq_s8_u8(weight.q[i]));
    });
  }

  // Stored indices of fewer bits. Two bits each, of four positions in the first and in the second half of 8 bytes:
  static constexpr bool kHasExpand = true;
  static Bytes expand2(const uint8_t* p) {
    const uint8x16_t packed = vld1q_u8(p), lane = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t half = vreinterpretq_u8_u32(vdupq_n_u32(0x04040000));
    const int8x16_t shift = {0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6};
    return each<Bytes>([&](int i) {
      const uint8x16_t repeated = vqtbl1q_u8(packed, vaddq_u8(lane, vdupq_n_u8(static_cast<uint8_t>(4 * i))));
      return vorrq_u8(vandq_u8(vshlq_u8(repeated, shift), vdupq_n_u8(3)), half);
    });
  }
  // Four bits each, of 16 positions.
  static Bytes expand4(const uint8_t* p) {
    const uint8x16_t a = vld1q_u8(p), b = vld1q_u8(p + 16), low = vdupq_n_u8(15);
    const uint8x16_t a_low = vandq_u8(a, low), a_high = vshrq_n_u8(a, 4), b_low = vandq_u8(b, low), b_high = vshrq_n_u8(b, 4);
    return {{vzip1q_u8(a_low, a_high), vzip2q_u8(a_low, a_high), vzip1q_u8(b_low, b_high), vzip2q_u8(b_low, b_high)}};
  }
  // Lane i of a and b become lanes 2 i and 2 i + 1 of both together.
  static void interleave(I32& a, I32& b) {
    const auto half = [](const int32x4_t* x, const int32x4_t* y) -> I32 {
      return {{vzip1q_s32(x[0], y[0]), vzip2q_s32(x[0], y[0]), vzip1q_s32(x[1], y[1]), vzip2q_s32(x[1], y[1])}};
    };
    const I32 first = half(a.q, b.q), second = half(a.q + 2, b.q + 2);
    a = first, b = second;
  }
  static void interleave(F32& a, F32& b) {
    I32 x = bits(a), y = bits(b);
    interleave(x, y);
    const auto back = [](const I32& v) { return each<F32>([&](int i) { return vreinterpretq_f32_s32(v.q[i]); }); };
    a = back(x), b = back(y);
  }
  static F32 as_floats(I32 v) { return each<F32>([&](int i) { return vreinterpretq_f32_s32(v.q[i]); }); }
  static F32 floats(Bytes v) { return each<F32>([&](int i) { return vreinterpretq_f32_u8(v.q[i]); }); }
  // acc += x[1] w[1], then acc += x[0] w[0], of the two BF16 in each lane.
  static F32 dot_bf16(F32 acc, Bytes x, Bytes w) {
    const auto high = [](uint8x16_t v) {
      return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(v), vdupq_n_u32(0xffff0000)));
    };
    const auto low = [](uint8x16_t v) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(v), 16)); };
    return each<F32>([&](int i) {
      return vfmaq_f32(vfmaq_f32(acc.q[i], high(x.q[i]), high(w.q[i])), low(x.q[i]), low(w.q[i]));
    });
  }
  // A vector that the compiler must take for a new one, in a register (kernels/peak.h).
  template <class T>
  [[gnu::always_inline]] static void hide(T& v) {
    asm volatile("" : "+w"(v.q[0]), "+w"(v.q[1]), "+w"(v.q[2]), "+w"(v.q[3]));
  }

  // What epilogues and activations need.
  static I32 load_u8(const uint8_t* p) {
    const uint8x16_t v = vld1q_u8(p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(v)), high = vmovl_high_u8(v);
    const auto four_of = [](uint32x4_t u) { return vreinterpretq_s32_u32(u); };
    return {{four_of(vmovl_u16(vget_low_u16(low))), four_of(vmovl_high_u16(low)), four_of(vmovl_u16(vget_low_u16(high))),
             four_of(vmovl_high_u16(high))}};
  }
  static I32 load_u8_part(const uint8_t* p, int n) {
    uint8_t bytes[16] = {};
    for (int i = 0; i < n && i < 16; ++i) bytes[i] = p[i];
    return load_u8(bytes);
  }
  static F32 load_bf16(const uint16_t* p) {
    return each<F32>([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
  }
  static F32 load_bf16_part(const uint16_t* p, int n) {
    uint16_t words[16] = {};
    for (int i = 0; i < n && i < 16; ++i) words[i] = p[i];
    return load_bf16(words);
  }
  static void store_bf16(uint16_t* p, F32 v) {
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t u = vreinterpretq_u32_f32(v.q[i]), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
      const uint32x4_t rounded = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
      const uint32x4_t number = vceqq_f32(v.q[i], v.q[i]);
      vst1_u16(p + 4 * i, vshrn_n_u32(vbslq_u32(number, rounded, vorrq_u32(u, vdupq_n_u32(0x400000))), 16));
    }
  }
  static void store_bf16_part(uint16_t* p, F32 v, int n) {
    uint16_t words[16];
    store_bf16(words, v);
    for (int i = 0; i < n && i < 16; ++i) p[i] = words[i];
  }
  static Bytes pack_u8(const I32 (&v)[4], int32_t zero_point) {
    const int16x8_t zero = vdupq_n_s16(static_cast<int16_t>(zero_point));
    return each<Bytes>([&](int i) {
      const auto half = [&](int j) {
        return vqmovun_s16(vqaddq_s16(vcombine_s16(vqmovn_s32(v[i].q[j]), vqmovn_s32(v[i].q[j + 1])), zero));
      };
      return vcombine_u8(half(0), half(2));
    });
  }
  static Bytes set1_u8(uint8_t v) { return same(vdupq_n_u8(v)); }
  static Bytes min_u8(Bytes a, Bytes b) { return each<Bytes>([&](int i) { return vminq_u8(a.q[i], b.q[i]); }); }
  static Bytes max_u8(Bytes a, Bytes b) { return each<Bytes>([&](int i) { return vmaxq_u8(a.q[i], b.q[i]); }); }
  static Bytes bit_xor(Bytes a, Bytes b) { return each<Bytes>([&](int i) { return veorq_u8(a.q[i], b.q[i]); }); }
  // tbl gives zero, and tbx what was there, where the index leaves the 64 bytes.
  static Bytes lookup256(Bytes index, const uint8_t* table) {
    Bytes found = set1_u8(0);
    for (int part = 0; part < 4; ++part) {
      const uint8x16x4_t from = four([&](int i) { return vld1q_u8(table + 64 * part + 16 * i); });
      const uint8x16_t first = vdupq_n_u8(static_cast<uint8_t>(64 * part));
      for (int i = 0; i < 4; ++i) found.q[i] = vqtbx4q_u8(found.q[i], from, vsubq_u8(index.q[i], first));
    }
    return found;
  }
  template <int rows>
  static Bytes repeat_rows(const uint8_t* p) {
    constexpr int registers = 4 / rows;
    return each<Bytes>([&](int i) { return vld1q_u8(p + i % registers * 16); });
  }
  template <int rows>
  static void store_rows(uint8_t* p, int64_t stride, Bytes v) {
    constexpr int registers = 4 / rows;
    for (int i = 0; i < 4; ++i) vst1q_u8(p + i / registers * stride + i % registers * 16, v.q[i]);
  }
  static void zip_quarters(Bytes& a, Bytes& b) {
    const Bytes low = each<Bytes>([&](int i) { return vzip1q_u8(a.q[i], b.q[i]); });
    b = each<Bytes>([&](int i) { return vzip2q_u8(a.q[i], b.q[i]); });
    a = low;
  }
  struct Sums { uint16x8_t words[8]; };
  static Sums zero_sums() {
    const uint16x8_t zero = vdupq_n_u16(0);
    return {{zero, zero, zero, zero, zero, zero, zero, zero}};
  }
  static void add_bytes(Sums& s, Bytes v) {
    for (int i = 0; i < 4; ++i) {
      s.words[2 * i] = vaddw_u8(s.words[2 * i], vget_low_u8(v.q[i]));
      s.words[2 * i + 1] = vaddw_high_u8(s.words[2 * i + 1], v.q[i]);
    }
  }
  static void widen(const Sums& s, I32 (&to)[4]) {
    const auto low = [](uint16x8_t w) { return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(w))); };
    const auto high = [](uint16x8_t w) { return vreinterpretq_s32_u32(vmovl_high_u16(w)); };
    for (int i = 0; i < 4; ++i) {
      const uint16x8_t first = s.words[2 * i], second = s.words[2 * i + 1];
      to[i] = {{low(first), high(first), low(second), high(second)}};
    }
  }
  static Bytes load_bytes_part(const uint8_t* p, int n) {
    if (n >= 64) return load_bytes(p);
    uint8_t bytes[64] = {};
    __builtin_memcpy(bytes, p, n);
    return load_bytes(bytes);
  }
  static void store_bytes_part(uint8_t* p, Bytes v, int n) {
    if (n == 16) return vst1q_u8(p, v.q[0]);
    uint8_t bytes[64];
    for (int i = 0; i < 4; ++i) vst1q_u8(bytes + 16 * i, v.q[i]);
    __builtin_memcpy(p, bytes, n);
  }
  static F32 abs(F32 a) { return each<F32>([&](int i) { return vabsq_f32(a.q[i]); }); }
  static F32 copy_sign(F32 magnitude, F32 sign) {
    return each<F32>([&](int i) { return vbslq_f32(vdupq_n_u32(0x80000000), sign.q[i], magnitude.q[i]); });
  }
  template <int n>
  static I32 shift_right(I32 a) {
    return each<I32>([&](int i) { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.q[i]), n)); });
  }

  static void store_bytes(void* p, Bytes v) {
    for (int i = 0; i < 4; ++i) vst1q_u8(static_cast<uint8_t*>(p) + 16 * i, v.q[i]);
  }
  static void transpose(Bytes (&m)[16]) {
    F32 f[16];
    for (int i = 0; i < 16; ++i) f[i] = floats(m[i]);
    transpose(f);
    for (int i = 0; i < 16; ++i) m[i] = each<Bytes>([&](int j) { return vreinterpretq_u8_f32(f[i].q[j]); });
  }
  // Kernel taps in the lanes: of 16 channels four taps of a byte, or two of 16 bits.
  static void taps4(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    const uint8x16_t a = vld1q_u8(x[0] + at), b = vld1q_u8(x[1] + at), c = vld1q_u8(x[2] + at), d = vld1q_u8(x[3] + at);
    const auto words = [](uint8x16_t v) { return vreinterpretq_u16_u8(v); };
    const auto bytes = [](uint16x8_t v) { return vreinterpretq_u8_u16(v); };
    const uint16x8_t ab = words(vzip1q_u8(a, b)), cd = words(vzip1q_u8(c, d));
    const uint16x8_t ab2 = words(vzip2q_u8(a, b)), cd2 = words(vzip2q_u8(c, d));
    to[0] = {{bytes(vzip1q_u16(ab, cd)), bytes(vzip2q_u16(ab, cd)), bytes(vzip1q_u16(ab2, cd2)), bytes(vzip2q_u16(ab2, cd2))}};
  }
  static void taps2(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    const auto words = [&](int tap, int half) { return vreinterpretq_u16_u8(vld1q_u8(x[tap] + at + 16 * half)); };
    const auto bytes = [](uint16x8_t v) { return vreinterpretq_u8_u16(v); };
    to[0] = {{bytes(vzip1q_u16(words(0, 0), words(1, 0))), bytes(vzip2q_u16(words(0, 0), words(1, 0))),
              bytes(vzip1q_u16(words(0, 1), words(1, 1))), bytes(vzip2q_u16(words(0, 1), words(1, 1)))}};
  }

 private:
  template <class F>
  [[gnu::always_inline]] static uint8x16x4_t four(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }
  static Bytes same(uint8x16_t v) { return {{v, v, v, v}}; }
  template <class T>
  static T load(const uint8_t* p) {
    T v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
};

}  // namespace openwork
