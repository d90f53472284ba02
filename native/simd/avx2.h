// The vocabulary on AVX2 with FMA: two registers of 256 bits are 16 lanes.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace openwork {

// A template, so that the functions of translation units with different flags (avxvnni.h) are not one symbol to the linker.
template <bool vnni>
struct Avx256 {
  static constexpr const char* kName = "avx2";
  static constexpr int kLanes = 16;
  // `dot` works on signed activations: the windows arrive with their top bit flipped, which subtracts 128.
  static constexpr int kActivationOffset = 128;
  // 16 registers: two for each row's accumulators, two weights, two indices, and the products' temporaries.
  static constexpr int kStrips = 1;
  static constexpr int kMaxRows = 4;
  static constexpr int kMaxRowsSparse = 4;
  static constexpr int kMaxRowsShared2 = 2;
  static constexpr int kMaxRowsShared4 = 0;  // one row's accumulators would fill half of the registers
  static constexpr int kChainedRegisters = 4;
  static constexpr bool kEveryForm = false;

  // Accumulators of a product with rows in the lanes (kernels/blocks): channels times vectors of rows.
  static constexpr int kBlockRegisters = 4;

  // 8 accumulators cover four cycles of latency on two ports; with 2 lanes of weights and 1 broadcast they fit 16.
  static constexpr int kFloatRows = 4;
  static constexpr int kFloatStrips = 1;

  struct F32 { __m256 low, high; };
  struct I32 { __m256i low, high; };
  struct Bytes { __m256i low, high; };

  // All ones in the lanes from `lane` to n: maskload and maskstore touch no other memory.
  static __m256i first(int n, int lane) {
    const __m256i index = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(lane));
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), index);
  }

  static F32 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F32 set1(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  static I32 set1_i32(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
  static F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F32 load_part(const float* p, int n) {
    return {_mm256_maskload_ps(p, first(n, 0)), _mm256_maskload_ps(p + 8, first(n, 8))};
  }
  static I32 load_i32(const int32_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
  }
  static void store(float* p, F32 v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
  }
  static void store_part(float* p, F32 v, int n) {
    _mm256_maskstore_ps(p, first(n, 0), v.low);
    _mm256_maskstore_ps(p + 8, first(n, 8), v.high);
  }
  static void store_i32(int32_t* p, I32 v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), v.high);
  }
  // Lanes hold 0..255, so that the saturating packs change nothing.
  static __m128i narrow(I32 v) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(v.low, v.high), 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  }
  static void store_u8(uint8_t* p, I32 v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v)); }
  static void store_u8_part(uint8_t* p, I32 v, int n) {
    uint8_t bytes[16];
    store_u8(bytes, v);
    for (int i = 0; i < n && i < 16; ++i) p[i] = bytes[i];
  }
  static F32 fill_from(F32 v, int n, float fill) {
    const __m256 f = _mm256_set1_ps(fill);
    return {_mm256_blendv_ps(f, v.low, _mm256_castsi256_ps(first(n, 0))),
            _mm256_blendv_ps(f, v.high, _mm256_castsi256_ps(first(n, 8)))};
  }

  static F32 add(F32 a, F32 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static F32 sub(F32 a, F32 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static F32 mul(F32 a, F32 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static F32 div(F32 a, F32 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
  static bool all_at_most(F32 a, float bound) {
    const __m256 most = _mm256_set1_ps(bound);
    const __m256 both = _mm256_and_ps(_mm256_cmp_ps(a.low, most, _CMP_LE_OQ), _mm256_cmp_ps(a.high, most, _CMP_LE_OQ));
    return _mm256_movemask_ps(both) == 0xff;
  }
  static F32 fma(F32 a, F32 b, F32 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
  static F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
  static F32 min_magnitude(F32 a, F32 b) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return min({_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)}, b);
  }
  static I32 bits(F32 a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
  // vpermps reads three bits of the index; the fourth, moved to the sign, chooses the half of the table.
  static F32 lookup16(F32 table, I32 index) {
    const auto one = [&](__m256i i) {
      return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, i), _mm256_permutevar8x32_ps(table.high, i),
                              _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
    };
    return {one(index.low), one(index.high)};
  }
  static F32 rint(F32 a) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.low, mode), _mm256_round_ps(a.high, mode)};
  }
  static I32 add(I32 a, I32 b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
  static F32 to_f32(I32 a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
  static I32 to_i32(F32 a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
  static I32 round_i32(F32 a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
  static I32 max(I32 a, I32 b) { return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)}; }
  static F32 add_exponent(F32 a, I32 n) {
    const auto one = [](__m256 v, __m256i e) {
      return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(e, 23)));
    };
    return {one(a.low, n.low), one(a.high, n.high)};
  }
  static F32 times_power(F32 a, F32 n) { return add_exponent(a, to_i32(max(n, set1(-40.0f)))); }
  static float reduce_add(F32 v) {
    const __m256 half = _mm256_add_ps(v.low, v.high);
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
  }
  static float reduce_max(F32 v) {
    const __m256 half = _mm256_max_ps(v.low, v.high);
    const __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
  }

  static void transpose(F32 (&m)[16]) {
    __m256 corner[4][8];  // (row half, lane half)
    for (int i = 0; i < 8; ++i) {
      corner[0][i] = m[i].low;
      corner[1][i] = m[i].high;
      corner[2][i] = m[8 + i].low;
      corner[3][i] = m[8 + i].high;
    }
    for (auto& c : corner) transpose8(c);
    for (int i = 0; i < 8; ++i) {
      m[i] = {corner[0][i], corner[2][i]};
      m[8 + i] = {corner[1][i], corner[3][i]};
    }
  }

  static I32 pair(I32 low, I32 high) {
    return {_mm256_blend_epi16(low.low, _mm256_slli_epi32(high.low, 16), 0xaa),
            _mm256_blend_epi16(low.high, _mm256_slli_epi32(high.high, 16), 0xaa)};
  }
  static I32 dot_pairs(I32 acc, I32 a, I32 b) {
    return {_mm256_add_epi32(acc.low, _mm256_madd_epi16(a.low, b.low)),
            _mm256_add_epi32(acc.high, _mm256_madd_epi16(a.high, b.high))};
  }

  static I32 zero_i32() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Bytes load_bytes(const void* p) {
    const auto* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  // A window is the same in both halves: the compiler keeps one register.
  static Bytes twice(__m256i v) { return {v, v}; }
  static Bytes window4(const uint8_t* p) { return twice(_mm256_set1_epi32(load<int32_t>(p))); }
  static Bytes window8(const uint8_t* p) { return twice(_mm256_set1_epi64x(load<int64_t>(p))); }
  static Bytes window16(const uint8_t* p) {
    return twice(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // The activations of `dot`.
  static Bytes flip(Bytes v) {
    const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
    return {_mm256_xor_si256(v.low, top), _mm256_xor_si256(v.high, top)};
  }
  // Stored indices of fewer bits. Two bits each, of four positions in the first and in the second half of 8 bytes:
  static constexpr bool kHasExpand = true;
  static Bytes expand2(const uint8_t* p) {
    const auto one = [](const uint8_t* q) {
      __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q)));
      v = _mm256_or_si256(v, _mm256_slli_epi32(v, 6));
      v = _mm256_or_si256(v, _mm256_slli_epi32(v, 12));
      return _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi32(0x03030303)), _mm256_set1_epi32(0x04040000));
    };
    return {one(p), one(p + 8)};
  }
  // Four bits each, of 16 positions.
  static Bytes expand4(const uint8_t* p) {
    const auto one = [](const uint8_t* q) {
      __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
      v = _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi32(v, 8)), _mm256_set1_epi32(0x00ff00ff));
      return _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi32(v, 4)), _mm256_set1_epi32(0x0f0f0f0f));
    };
    return {one(p), one(p + 16)};
  }
  // Lane i of a and b become lanes 2 i and 2 i + 1 of both together.
  static void interleave(I32& a, I32& b) {
    const auto half = [](__m256i x, __m256i y) -> I32 {
      const __m256i low = _mm256_unpacklo_epi32(x, y), high = _mm256_unpackhi_epi32(x, y);
      return {_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31)};
    };
    const I32 first = half(a.low, b.low), second = half(a.high, b.high);
    a = first, b = second;
  }
  static void interleave(F32& a, F32& b) {
    I32 x = bits(a), y = bits(b);
    interleave(x, y);
    a = floats(x), b = floats(y);
  }
  static F32 as_floats(I32 v) { return floats(v); }
  template <class Integers>
  static F32 floats(Integers v) {
    return {_mm256_castsi256_ps(v.low), _mm256_castsi256_ps(v.high)};
  }
  // acc += x[1] w[1], then acc += x[0] w[0], of the two BF16 in each lane.
  static F32 dot_bf16(F32 acc, Bytes x, Bytes w) {
    const auto one = [](__m256 sum, __m256i a, __m256i b) {
      const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000));
      sum = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(a, high)), _mm256_castsi256_ps(_mm256_and_si256(b, high)), sum);
      return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)), sum);
    };
    return {one(acc.low, x.low, w.low), one(acc.high, x.high, w.high)};
  }
  // No shuffle of AVX2 reaches 64 bytes: window64 is not in this instruction set's rows of the kernel table.
  static constexpr bool kHasShuffle64 = false;
  static Bytes shuffle16(Bytes window, Bytes index) {
    return {_mm256_shuffle_epi8(window.low, index.low), _mm256_shuffle_epi8(window.high, index.high)};
  }
  // vpmaddubsw saturates at 16 bits for u8 x s8. With |x| <= 128 as the unsigned operand and sign(w, x), |w| <= 127, as the
  // signed one a pair sums to at most 2 * 128 * 127 = 32512, so nothing saturates.
  static I32 dot(I32 acc, Bytes activation, Bytes weight) {
    return {dot8(acc.low, activation.low, weight.low), dot8(acc.high, activation.high, weight.high)};
  }
  // A vector that the compiler must take for a new one, in a register (kernels/peak.h).
  template <class T>
  [[gnu::always_inline]] static void hide(T& v) {
    asm volatile("" : "+x"(v.low), "+x"(v.high));
  }

  // What epilogues and activations need.
  static I32 widen_u8(__m128i v) { return {_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))}; }
  static I32 load_u8(const uint8_t* p) { return widen_u8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static I32 load_u8_part(const uint8_t* p, int n) {
    uint8_t bytes[16] = {};
    for (int i = 0; i < n && i < 16; ++i) bytes[i] = p[i];
    return load_u8(bytes);
  }
  static F32 load_bf16(const uint16_t* p) {
    const auto one = [](const uint16_t* q) {
      const __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
      return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
    };
    return {one(p), one(p + 8)};
  }
  static F32 load_bf16_part(const uint16_t* p, int n) {
    uint16_t words[16] = {};
    for (int i = 0; i < n && i < 16; ++i) words[i] = p[i];
    return load_bf16(words);
  }
  static void store_bf16(uint16_t* p, F32 v) {
    const auto one = [](__m256 f) {
      const __m256i u = _mm256_castps_si256(f), high = _mm256_srli_epi32(u, 16);
      const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
      const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
      const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
      return _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
    };
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(one(v.low), one(v.high)), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), words);
  }
  static void store_bf16_part(uint16_t* p, F32 v, int n) {
    uint16_t words[16];
    store_bf16(words, v);
    for (int i = 0; i < n && i < 16; ++i) p[i] = words[i];
  }
  static Bytes pack_u8(const I32 (&v)[4], int32_t zero_point) {
    const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(zero_point)), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const auto words = [&](const I32& a) { return _mm256_adds_epi16(_mm256_packs_epi32(a.low, a.high), zero); };
    const auto pair = [&](const I32& a, const I32& b) {
      return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words(a), words(b)), order);
    };
    return {pair(v[0], v[1]), pair(v[2], v[3])};
  }
  static Bytes set1_u8(uint8_t v) { return twice(_mm256_set1_epi8(static_cast<char>(v))); }
  static Bytes min_u8(Bytes a, Bytes b) { return {_mm256_min_epu8(a.low, b.low), _mm256_min_epu8(a.high, b.high)}; }
  static Bytes max_u8(Bytes a, Bytes b) { return {_mm256_max_epu8(a.low, b.low), _mm256_max_epu8(a.high, b.high)}; }
  static Bytes bit_xor(Bytes a, Bytes b) { return {_mm256_xor_si256(a.low, b.low), _mm256_xor_si256(a.high, b.high)}; }
  // A row of 16 after the other: vpshufb gives zero where the index, moved to the row, leaves 0 to 15.
  static Bytes lookup256(Bytes index, const uint8_t* table) {
    Bytes found = twice(_mm256_setzero_si256());
    for (int row = 0; row < 16; ++row) {
      const __m256i from = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * row)));
      const __m256i first_byte = _mm256_set1_epi8(static_cast<char>(16 * row)), least = _mm256_set1_epi8(0x70);
      const auto add = [&](__m256i sum, __m256i i) {
        return _mm256_or_si256(sum, _mm256_shuffle_epi8(from, _mm256_adds_epu8(_mm256_xor_si256(i, first_byte), least)));
      };
      found = {add(found.low, index.low), add(found.high, index.high)};
    }
    return found;
  }
  template <int rows>
  static Bytes repeat_rows(const uint8_t* p) {
    if constexpr (rows == 1) return load_bytes(p);
    if constexpr (rows == 2) return twice(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    if constexpr (rows == 4) return window16(p);
  }
  template <int rows>
  static void store_rows(uint8_t* p, int64_t stride, Bytes v) {
    static_assert(rows == 4, "tiles are one strip wide");
    const auto put = [&](int r, __m128i row) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p + r * stride), row); };
    put(0, _mm256_castsi256_si128(v.low));
    put(1, _mm256_extracti128_si256(v.low, 1));
    put(2, _mm256_castsi256_si128(v.high));
    put(3, _mm256_extracti128_si256(v.high, 1));
  }
  static void zip_quarters(Bytes& a, Bytes& b) {
    const Bytes low = {_mm256_unpacklo_epi8(a.low, b.low), _mm256_unpacklo_epi8(a.high, b.high)};
    b = {_mm256_unpackhi_epi8(a.low, b.low), _mm256_unpackhi_epi8(a.high, b.high)};
    a = low;
  }
  // 16 bits for the bytes at even places, and for those at odd ones.
  struct Sums { Bytes even, odd; };
  static Sums zero_sums() { return {twice(_mm256_setzero_si256()), twice(_mm256_setzero_si256())}; }
  static void add_bytes(Sums& s, Bytes v) {
    const __m256i low = _mm256_set1_epi16(0xff);
    s.even = {_mm256_add_epi16(s.even.low, _mm256_and_si256(v.low, low)), _mm256_add_epi16(s.even.high, _mm256_and_si256(v.high, low))};
    s.odd = {_mm256_add_epi16(s.odd.low, _mm256_srli_epi16(v.low, 8)), _mm256_add_epi16(s.odd.high, _mm256_srli_epi16(v.high, 8))};
  }
  static void widen(const Sums& s, I32 (&to)[4]) {
    // The unpacks leave 8 sums that follow each other in each 128-bit half: the first 8 of 16 in `a`, the other 8 in `b`.
    const auto half = [](__m256i even, __m256i odd, I32& first, I32& second) {
      const __m256i a = _mm256_unpacklo_epi16(even, odd), b = _mm256_unpackhi_epi16(even, odd);
      first = {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_castsi256_si128(b))};
      second = {_mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(b, 1))};
    };
    half(s.even.low, s.odd.low, to[0], to[1]);
    half(s.even.high, s.odd.high, to[2], to[3]);
  }
  static Bytes load_bytes_part(const uint8_t* p, int n) {
    if (n >= 64) return load_bytes(p);
    uint8_t bytes[64] = {};
    __builtin_memcpy(bytes, p, n);
    return load_bytes(bytes);
  }
  static void store_bytes_part(uint8_t* p, Bytes v, int n) {
    if (n == 16) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(v.low));
    uint8_t bytes[64];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes), v.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + 32), v.high);
    __builtin_memcpy(p, bytes, n);
  }
  static F32 abs(F32 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
  }
  static F32 copy_sign(F32 magnitude, F32 sign) {
    const __m256 top = _mm256_set1_ps(-0.0f);
    const auto one = [&](__m256 m, __m256 s) { return _mm256_or_ps(_mm256_andnot_ps(top, m), _mm256_and_ps(top, s)); };
    return {one(magnitude.low, sign.low), one(magnitude.high, sign.high)};
  }
  template <int n>
  static I32 shift_right(I32 a) { return {_mm256_srli_epi32(a.low, n), _mm256_srli_epi32(a.high, n)}; }

  static void store_bytes(void* p, Bytes v) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), v.low);
    _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, v.high);
  }
  static void transpose(Bytes (&m)[16]) {
    F32 f[16];
    for (int i = 0; i < 16; ++i) f[i] = floats(m[i]);
    transpose(f);
    for (int i = 0; i < 16; ++i) m[i] = {_mm256_castps_si256(f[i].low), _mm256_castps_si256(f[i].high)};
  }
  // Kernel taps in the lanes: of 16 channels four taps of a byte, or two of 16 bits.
  static void taps4(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    const __m128i a = load16(x[0] + at), b = load16(x[1] + at), c = load16(x[2] + at), d = load16(x[3] + at);
    const __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
    const __m128i ab2 = _mm_unpackhi_epi8(a, b), cd2 = _mm_unpackhi_epi8(c, d);
    to[0] = {join(_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)),
             join(_mm_unpacklo_epi16(ab2, cd2), _mm_unpackhi_epi16(ab2, cd2))};
  }
  static void taps2(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    const auto half = [&](int64_t from) {
      const __m128i a = load16(x[0] + from), b = load16(x[1] + from);
      return join(_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b));
    };
    to[0] = {half(at), half(at + 16)};
  }

 private:
  static __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static __m256i join(__m128i low, __m128i high) { return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1); }
  static void transpose8(__m256 (&m)[8]) {
    __m256 pair[8], quad[8];
    for (int i = 0; i < 8; i += 2) {
      pair[i] = _mm256_unpacklo_ps(m[i], m[i + 1]);
      pair[i + 1] = _mm256_unpackhi_ps(m[i], m[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      quad[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
      quad[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee);
      quad[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
      quad[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      m[i] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
      m[i + 4] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);
    }
  }
  static __m256i dot8(__m256i acc, __m256i x, __m256i w) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  template <class T>
  static T load(const uint8_t* p) {
    T v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
};

using Avx2 = Avx256<false>;

}  // namespace openwork
