// The vocabulary on AVX-512 with VNNI: one register of 512 bits is 16 lanes. With VBMI (Ice Lake, Zen 4 and later) bytes can
// be picked from the whole register; without it (Cascade Lake) see avx512vnni_novbmi.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace openwork {

// What there is beyond VNNI; each holds what stands before it.
enum class Avx512Tier { vnni, vbmi, bf16, amx_emulated, amx };

// A template, so that the functions of the translation units, which have different flags, are not one symbol to the linker.
template <Avx512Tier tier>
struct Avx512 {
  static constexpr const char* kName = "avx512vnni";
  static constexpr int kLanes = 16;
  static constexpr int kActivationOffset = 0;
  // 32 registers: two strips of accumulators, one weight and (sparse) one index register a strip, and the activation.
  static constexpr int kStrips = 2;
  static constexpr int kMaxRows = 14;
  // 13 rows fit too, and were 1 to 2% slower.
  static constexpr int kMaxRowsSparse = 12;
  static constexpr int kMaxRowsShared2 = 12;
  static constexpr int kMaxRowsShared4 = 6;
  // Accumulators that cover the latency of a dot product.
  static constexpr int kChainedRegisters = 8;
  static constexpr bool kEveryForm = false;

  // Accumulators of a product with rows in the lanes (kernels/blocks): channels times vectors of rows.
  static constexpr int kBlockRegisters = 16;

  // 16 accumulators: eight cover four cycles of latency on two ports, and 8 rows divide the usual lengths.
  static constexpr int kFloatRows = 8;
  static constexpr int kFloatStrips = 2;

  using F32 = __m512;
  using I32 = __m512i;
  using Bytes = __m512i;

  static __mmask16 first(int n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1); }

  static F32 zero() { return _mm512_setzero_ps(); }
  static F32 set1(float v) { return _mm512_set1_ps(v); }
  static I32 set1_i32(int32_t v) { return _mm512_set1_epi32(v); }
  static F32 load(const float* p) { return _mm512_loadu_ps(p); }
  static F32 load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static I32 load_i32(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store(float* p, F32 v) { _mm512_storeu_ps(p, v); }
  static void store_part(float* p, F32 v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }
  static void store_i32(int32_t* p, I32 v) { _mm512_storeu_si512(p, v); }
  static void store_u8(uint8_t* p, I32 v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v)); }
  static void store_u8_part(uint8_t* p, I32 v, int n) { _mm512_mask_cvtepi32_storeu_epi8(p, first(n), v); }
  static F32 fill_from(F32 v, int n, float fill) { return _mm512_mask_blend_ps(first(n), _mm512_set1_ps(fill), v); }

  static F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
  static F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
  static F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
  static F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
  static F32 sqrt(F32 a) { return _mm512_sqrt_ps(a); }
  static bool all_at_most(F32 a, float bound) { return _mm512_cmp_ps_mask(a, set1(bound), _CMP_LE_OQ) == 0xffff; }
  static F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
  static F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
  static F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
  static F32 min_magnitude(F32 a, F32 b) { return _mm512_range_ps(a, b, 0x0a); }
  static I32 bits(F32 a) { return _mm512_castps_si512(a); }
  static F32 lookup16(F32 table, I32 index) { return _mm512_permutexvar_ps(index, table); }
  static F32 rint(F32 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static I32 add(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
  static F32 to_f32(I32 a) { return _mm512_cvtepi32_ps(a); }
  static I32 to_i32(F32 a) { return _mm512_cvtps_epi32(a); }
  static I32 round_i32(F32 a) { return _mm512_cvtps_epi32(a); }
  static I32 max(I32 a, I32 b) { return _mm512_max_epi32(a, b); }
  static F32 add_exponent(F32 a, I32 n) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(n, 23)));
  }
  static F32 times_power(F32 a, F32 n) { return _mm512_scalef_ps(a, n); }
  static float reduce_add(F32 v) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
  }
  static float reduce_max(F32 v) { return _mm512_reduce_max_ps(v); }

  static void transpose(F32 (&m)[16]) {
    F32 t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(m[i], m[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(m[i], m[i + 1]);
    }
    // m[4 i + j]: element 4 q + j of rows 4 i to 4 i + 3 in each 128-bit quarter q.
    for (int i = 0; i < 16; i += 4) {
      m[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
      m[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
      m[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      m[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int j = 0; j < 4; ++j) {
      const F32 even_low = _mm512_shuffle_f32x4(m[j], m[4 + j], 0x88), odd_low = _mm512_shuffle_f32x4(m[j], m[4 + j], 0xdd);
      const F32 even_high = _mm512_shuffle_f32x4(m[8 + j], m[12 + j], 0x88);
      const F32 odd_high = _mm512_shuffle_f32x4(m[8 + j], m[12 + j], 0xdd);
      t[j] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
      t[4 + j] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
      t[8 + j] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
      t[12 + j] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
    for (int i = 0; i < 16; ++i) m[i] = t[i];
  }

  static I32 zero_i32() { return _mm512_setzero_si512(); }
  static Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
  static Bytes window4(const uint8_t* p) { return _mm512_set1_epi32(load<int32_t>(p)); }
  static Bytes window8(const uint8_t* p) { return _mm512_set1_epi64(load<int64_t>(p)); }
  static Bytes window16(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Bytes window64(const uint8_t* p) {
    Bytes v = load_bytes(p);
    // Else GCC reads it again, from memory, for each shuffle.
    asm("" : "+v"(v));
    return v;
  }
  // The number that a byte of activations stands for is unsigned here.
  static Bytes flip(Bytes v) { return v; }
  static constexpr bool kHasShuffle64 = true;
  static Bytes shuffle16(Bytes window, Bytes index) { return _mm512_shuffle_epi8(window, index); }
  static Bytes shuffle64(Bytes window, Bytes index) { return _mm512_permutexvar_epi8(index, window); }
  // Stored indices of fewer bits. Two bits each, of four positions in the first and in the second half of 8 bytes:
  static constexpr bool kHasExpand = true;
  static Bytes expand2(const uint8_t* p) {
    const __m512i lanes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m512i fields = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x2624222006040200), lanes);
    // (fields & 3) | half
    return _mm512_ternarylogic_epi32(fields, _mm512_set1_epi32(0x03030303), _mm512_set1_epi32(0x04040000), 0xea);
  }
  // Four bits each, of 16 positions.
  static Bytes expand4(const uint8_t* p) {
    const __m512i lanes = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i fields = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x2c2824200c080400), lanes);
    return _mm512_and_si512(fields, _mm512_set1_epi32(0x0f0f0f0f));
  }
  // Lane i of a and b become lanes 2 i and 2 i + 1 of both together.
  static void interleave(I32& a, I32& b) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const __m512i first = _mm512_permutex2var_epi32(a, low, b);
    b = _mm512_permutex2var_epi32(a, high, b);
    a = first;
  }
  static void interleave(F32& a, F32& b) {
    I32 x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
    interleave(x, y);
    a = _mm512_castsi512_ps(x), b = _mm512_castsi512_ps(y);
  }
  static F32 as_floats(I32 v) { return _mm512_castsi512_ps(v); }
  static F32 floats(Bytes v) { return _mm512_castsi512_ps(v); }
  // acc += x[1] w[1], then acc += x[0] w[0], of the two BF16 in each lane.
  static F32 dot_bf16(F32 acc, Bytes x, Bytes w) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    acc = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)), _mm512_castsi512_ps(_mm512_and_si512(w, high)), acc);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), acc);
  }
  static I32 pair(I32 low, I32 high) { return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_slli_epi32(high, 16)); }
  // GCC 12 copies and spills the accumulators around the intrinsic: 45 us for what takes 28 so.
  static I32 dot_pairs(I32 acc, I32 a, I32 b) {
    asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
  }
  static I32 dot(I32 acc, Bytes activation, Bytes weight) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(activation), "v"(weight));
    return acc;
  }
  // A vector that the compiler must take for a new one, in a register (kernels/peak.h).
  template <class T>
  [[gnu::always_inline]] static void hide(T& v) {
    asm volatile("" : "+v"(v));
  }

  // What epilogues and activations need.
  static __mmask64 first_bytes(int n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }
  static I32 load_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static I32 load_u8_part(const uint8_t* p, int n) { return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(n), p)); }
  static F32 load_bf16(const uint16_t* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static F32 load_bf16_part(const uint16_t* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(first(n), p)); }
  static F32 widen_bf16(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
  static __m256i narrow_bf16(F32 v) {
    const __m512i u = bits(v), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
  }
  static void store_bf16(uint16_t* p, F32 v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(v)); }
  static void store_bf16_part(uint16_t* p, F32 v, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow_bf16(v)); }
  static Bytes pack_u8(const I32 (&v)[4], int32_t zero_point) {
    const __m512i zero = _mm512_set1_epi16(static_cast<int16_t>(zero_point));
    const __m512i words0 = _mm512_adds_epi16(_mm512_packs_epi32(v[0], v[1]), zero);
    const __m512i words1 = _mm512_adds_epi16(_mm512_packs_epi32(v[2], v[3]), zero);
    // The packs leave four bytes of each of the four vectors in each 128-bit quarter.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(words0, words1));
  }
  static Bytes set1_u8(uint8_t v) { return _mm512_set1_epi8(static_cast<char>(v)); }
  static Bytes min_u8(Bytes a, Bytes b) { return _mm512_min_epu8(a, b); }
  static Bytes max_u8(Bytes a, Bytes b) { return _mm512_max_epu8(a, b); }
  static Bytes bit_xor(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
  static Bytes lookup256(Bytes index, const uint8_t* table) {
    if constexpr (tier != Avx512Tier::vnni) {
      const __m512i low = _mm512_permutex2var_epi8(load_bytes(table), index, load_bytes(table + 64));
      const __m512i high = _mm512_permutex2var_epi8(load_bytes(table + 128), index, load_bytes(table + 192));
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
    } else {
      // A row of 16 after the other: vpshufb gives zero where the index, moved to the row, leaves 0 to 15.
      __m512i found = _mm512_setzero_si512();
      for (int row = 0; row < 16; ++row) {
        const __m512i from = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * row)));
        const __m512i at = _mm512_adds_epu8(_mm512_xor_si512(index, set1_u8(static_cast<uint8_t>(16 * row))), set1_u8(0x70));
        found = _mm512_or_si512(found, _mm512_shuffle_epi8(from, at));
      }
      return found;
    }
  }
  template <int rows>
  static Bytes repeat_rows(const uint8_t* p) {
    if constexpr (rows == 1) return load_bytes(p);
    if constexpr (rows == 2) return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    if constexpr (rows == 4) return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  template <int rows>
  static void store_rows(uint8_t* p, int64_t stride, Bytes v) {
    const auto quarter = [&](int r, __m128i row) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p + r * stride), row); };
    if constexpr (rows == 1) {
      _mm512_storeu_si512(p, v);
    } else if constexpr (rows == 4) {
      quarter(0, _mm512_castsi512_si128(v));
      quarter(1, _mm512_extracti32x4_epi32(v, 1));
      quarter(2, _mm512_extracti32x4_epi32(v, 2));
      quarter(3, _mm512_extracti32x4_epi32(v, 3));
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_castsi512_si256(v));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + stride), _mm512_extracti64x4_epi64(v, 1));
    }
  }
  static void zip_quarters(Bytes& a, Bytes& b) {
    const __m512i low = _mm512_unpacklo_epi8(a, b);
    b = _mm512_unpackhi_epi8(a, b);
    a = low;
  }
  // 16 bits for the bytes at even places, and for those at odd ones.
  struct Sums { __m512i even, odd; };
  static Sums zero_sums() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
  static void add_bytes(Sums& s, Bytes v) {
    s.even = _mm512_add_epi16(s.even, _mm512_and_si512(v, _mm512_set1_epi16(0xff)));
    s.odd = _mm512_add_epi16(s.odd, _mm512_srli_epi16(v, 8));
  }
  static void widen(const Sums& s, I32 (&to)[4]) {
    const __m512i order = _mm512_setr_epi32(0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39);
    for (int i = 0; i < 4; ++i)
      to[i] = _mm512_maskz_permutex2var_epi16(0x55555555, s.even, _mm512_add_epi32(order, _mm512_set1_epi32(8 * i)), s.odd);
  }
  static Bytes load_bytes_part(const uint8_t* p, int n) { return _mm512_maskz_loadu_epi8(first_bytes(n), p); }
  static void store_bytes_part(uint8_t* p, Bytes v, int n) { _mm512_mask_storeu_epi8(p, first_bytes(n), v); }
  static F32 abs(F32 a) { return _mm512_abs_ps(a); }
  static F32 copy_sign(F32 magnitude, F32 sign) {
    // Bits of the first operand where the mask is set, else of the second.
    const __m512i r = _mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MIN), bits(sign), bits(magnitude), 0xca);
    return _mm512_castsi512_ps(r);
  }
  template <int n>
  static I32 shift_right(I32 a) { return _mm512_srli_epi32(a, n); }

  static void store_bytes(void* p, Bytes v) { _mm512_storeu_si512(p, v); }
  static void transpose(Bytes (&m)[16]) {
    F32 f[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) f[i] = floats(m[i]);
    transpose(f);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) m[i] = bits(f[i]);
  }
  // Kernel taps in the lanes: of 32 channels four taps of a byte, or two of 16 bits.
  static void taps4(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    const __m512i ab = two(x[0] + at, x[1] + at), cd = two(x[2] + at, x[3] + at);
    // Byte 0 of a, b, c and d, then their bytes 1, ...
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(0x01010101)), _mm512_set1_epi32(0x60402000));
    to[0] = _mm512_permutex2var_epi8(ab, index, cd);
    to[1] = _mm512_permutex2var_epi8(ab, _mm512_add_epi32(index, _mm512_set1_epi32(0x10101010)), cd);
  }
  static void taps2(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    const __m512i a = load_bytes(x[0] + at), b = load_bytes(x[1] + at);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(0x00010001)), _mm512_set1_epi32(0x00200000));
    to[0] = _mm512_permutex2var_epi16(a, index, b);
    to[1] = _mm512_permutex2var_epi16(a, _mm512_add_epi32(index, _mm512_set1_epi32(0x00100010)), b);
  }

 private:
  // 32 bytes from each.
  static __m512i two(const uint8_t* a, const uint8_t* b) {
    const auto load32 = [](const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); };
    return _mm512_inserti64x4(_mm512_castsi256_si512(load32(a)), load32(b), 1);
  }
  template <class T>
  static T load(const uint8_t* p) {
    T v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
};

using Avx512Vnni = Avx512<Avx512Tier::vbmi>;

}  // namespace openwork
