// The words of a vocabulary of simd/ behind function pointers, so that a test compares instruction sets that need different
// compiler flags. Included by one translation unit for each set, which defines no symbol that another one could share.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace openwork::test {

// What a word is given: simd/scalar.h says what each is for.
enum class Draw {
  floats,     // anything but a signalling NaN, the extremes often
  moderate,   // finite, not 0
  whole,      // whole numbers that INT32 holds
  below,      // floats, but nothing above INT32
  powers,     // a in (1, 2^16), b whole in [-200, 0]
  exponents,  // a moderate, b INT32 in [-60, 60]
  integers,   // INT32, whose sums INT32 holds
  pixels,     // INT32 in [0, 255]
  pairs,      // of 16-bit numbers, the sums of whose products INT32 holds
  bytes,
  index8,     // bytes, those of b below 8
  index16,    // bytes, those of b below 16
  index64,    // bytes, those of b below 64
  weights,    // bytes, those of b in [-127, 127], and c integers
};

struct Operands {
  alignas(64) uint8_t a[64], b[64], c[64];
  int n;  // lanes of a part, 0 to 16
};

struct Result {
  alignas(64) uint8_t first[64], second[64];
};

struct Word {
  const char* name;
  Draw draw;
  bool floats;                            // a NaN is as good as another
  void (*run)(const Operands&, Result&);  // null where the instruction set lacks the word
};

struct Vocabulary {
  const char* isa;
  const Word* words;
  int count;
};

template <class V>
struct Words {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  using Bytes = typename V::Bytes;

  static const float* floats(const uint8_t* p) { return reinterpret_cast<const float*>(p); }
  static const uint16_t* words(const uint8_t* p) { return reinterpret_cast<const uint16_t*>(p); }
  static uint16_t* words(uint8_t* p) { return reinterpret_cast<uint16_t*>(p); }
  static F32 f(const uint8_t* p) { return V::load(floats(p)); }
  static I32 i(const uint8_t* p) { return V::load_i32(reinterpret_cast<const int32_t*>(p)); }
  static Bytes b(const uint8_t* p) { return V::load_bytes(p); }
  static void put(uint8_t* to, F32 v) { V::store(reinterpret_cast<float*>(to), v); }
  static void put(uint8_t* to, float v) { std::memcpy(to, &v, sizeof v); }
  static void put_i32(uint8_t* to, const I32& v) { V::store_i32(reinterpret_cast<int32_t*>(to), v); }
  static void put_bytes(uint8_t* to, const Bytes& v) { put(to, V::floats(v)); }

  static void transpose(const Operands& o, Result& r) {
    F32 m[16];
    for (int k = 0; k < 16; ++k) m[k] = V::add(f(k % 2 ? o.b : o.a), V::set1(static_cast<float>(k)));
    V::transpose(m);
    F32 sum = V::zero();
    for (int k = 0; k < 16; ++k) sum = V::fma(m[k], V::set1(static_cast<float>(k + 1)), sum);
    put(r.first, m[5]);
    put(r.second, sum);
  }
  static void lookup256(const Operands& o, Result& r) {
    uint8_t table[256];
    for (int k = 0; k < 64; ++k) table[k] = o.a[k], table[64 + k] = o.b[k], table[128 + k] = o.c[k], table[192 + k] = o.a[63 - k];
    put_bytes(r.first, V::lookup256(b(o.b), table));
  }
  // As many rows as a tile's quantized outputs fill; together they are the vector again.
  static void store_rows(const Operands& o, Result& r) {
    constexpr int rows = 4 / V::kStrips, bytes = 64 / rows;
    uint8_t to[rows][80] = {};
    V::template store_rows<rows>(to[0], sizeof to[0], b(o.a));
    for (int k = 0; k < rows; ++k) {
      std::memcpy(r.first + k * bytes, to[k], bytes);
      r.second[k / 4] |= to[k][bytes];
    }
  }
  static void zip_quarters(const Operands& o, Result& r) {
    Bytes x = b(o.a), y = b(o.b);
    V::zip_quarters(x, y);
    put_bytes(r.first, x);
    put_bytes(r.second, y);
  }
  // As many sums of 255 as 16 bits hold.
  static void sums(const Operands& o, Result& r) {
    typename V::Sums s = V::zero_sums();
    for (int k = 0; k < 254; ++k) V::add_bytes(s, V::set1_u8(255));
    for (const uint8_t* p : {o.a, o.b, o.c}) V::add_bytes(s, b(p));
    I32 to[4];
    V::widen(s, to);
    put_i32(r.first, V::add(to[0], to[3]));
    put_i32(r.second, V::add(to[1], V::add(to[2], to[2])));
  }
  static void store_quarters(const Operands& o, Result& r) {
    V::template store_rows<4>(r.first, 16, b(o.a));
    V::template store_rows<4>(r.second + 3, 13, b(o.b));
  }
  static void transpose_bytes(const Operands& o, Result& r) {
    Bytes m[16];
    for (int k = 0; k < 16; ++k) m[k] = b(k % 3 == 0 ? o.a : k % 3 == 1 ? o.b : o.c);
    V::transpose(m);
    put_bytes(r.first, m[3]);
    V::store_bytes(r.second, m[14]);
  }
  // Instruction sets take one strip of channels at a time or two.
  template <class F>
  static void strips(F load, Result& r) {
    Bytes to[2][V::kStrips];
    load(0, to[0]);
    if (V::kStrips == 1) load(1, to[1]);
    put_bytes(r.first, to[0][0]);
    put_bytes(r.second, V::kStrips == 1 ? to[1][0] : to[0][V::kStrips - 1]);
  }
  static void taps4(const Operands& o, Result& r) {
    const uint8_t* const x[4] = {o.a, o.b, o.c, o.a + 24};
    strips([&](int strip, Bytes(&to)[V::kStrips]) { V::taps4(x, 5 + 16 * strip, to); }, r);
  }
  static void taps2(const Operands& o, Result& r) {
    const uint8_t* const x[2] = {o.a, o.b};
    strips([&](int strip, Bytes(&to)[V::kStrips]) { V::taps2(x, 32 * strip, to); }, r);
  }
  // What `dot` subtracts from the activations is given back. The weights of a lane, or the first four for all.
  static void restore(const Operands& o, bool first_four, uint8_t (&sums)[64]) {
    for (int lane = 0; lane < 16; ++lane) {
      int32_t sum;
      std::memcpy(&sum, sums + 4 * lane, 4);
      for (int k = 0; k < 4; ++k) sum += V::kActivationOffset * static_cast<int8_t>(o.b[first_four ? k : 4 * lane + k]);
      std::memcpy(sums + 4 * lane, &sum, 4);
    }
  }
  static void dot(const Operands& o, Result& r) {
    put_i32(r.first, V::dot(i(o.c), V::flip(b(o.a)), b(o.b)));
    put_i32(r.second, V::dot(i(o.c), V::flip(V::window4(o.a + 1)), b(o.b)));
    restore(o, false, r.first);
    restore(o, false, r.second);
  }
  static void dot_of_one_quad(const Operands& o, Result& r) {
    put_i32(r.first, V::dot(i(o.c), V::flip(b(o.a)), V::window4(o.b)));
    restore(o, true, r.first);
  }
};

template <class V>
using I32Of = typename V::I32;

template <class V>
constexpr auto shuffle64() -> decltype(Word::run) {
  using W = Words<V>;
  if constexpr (V::kHasShuffle64)
    return [](const Operands& o, Result& r) { W::put_bytes(r.first, V::shuffle64(V::window64(o.a), W::b(o.b))); };
  else
    return nullptr;
}

#define OPENWORK_F(name, draw, expression) \
  {name, Draw::draw, true, [](const Operands& o, Result& r) { (void)o; W::put(r.first, expression); }}
#define OPENWORK_I(name, draw, expression) \
  {name, Draw::draw, false, [](const Operands& o, Result& r) { (void)o; W::put_i32(r.first, expression); }}
#define OPENWORK_B(name, draw, expression) \
  {name, Draw::draw, false, [](const Operands& o, Result& r) { (void)o; W::put_bytes(r.first, expression); }}

template <class V, class W = Words<V>>
inline constexpr Word kWords[] = {
    OPENWORK_F("zero", floats, V::zero()),
    OPENWORK_F("set1", floats, V::set1(W::floats(o.a)[3])),
    OPENWORK_I("set1_i32", integers, V::set1_i32(o.a[3] - 100)),
    OPENWORK_I("zero_i32", integers, V::zero_i32()),
    OPENWORK_F("load_part", floats, V::load_part(W::floats(o.a), o.n)),
    OPENWORK_F("fill_from", floats, V::fill_from(W::f(o.a), o.n, W::floats(o.b)[0])),
    {"store_part", Draw::floats, true,
     [](const Operands& o, Result& r) { V::store_part(reinterpret_cast<float*>(r.first), W::f(o.a), o.n); }},
    {"store_u8", Draw::pixels, false, [](const Operands& o, Result& r) { V::store_u8(r.first, W::i(o.a)); }},
    {"store_u8_part", Draw::pixels, false, [](const Operands& o, Result& r) { V::store_u8_part(r.first, W::i(o.a), o.n); }},
    OPENWORK_F("add", floats, V::add(W::f(o.a), W::f(o.b))),
    OPENWORK_F("sub", floats, V::sub(W::f(o.a), W::f(o.b))),
    OPENWORK_F("mul", floats, V::mul(W::f(o.a), W::f(o.b))),
    OPENWORK_F("div", floats, V::div(W::f(o.a), W::f(o.b))),
    OPENWORK_F("sqrt", floats, V::sqrt(W::f(o.a))),
    OPENWORK_F("fma", floats, V::fma(W::f(o.a), W::f(o.b), W::f(o.c))),
    OPENWORK_F("min", floats, V::min(W::f(o.a), W::f(o.b))),
    OPENWORK_F("max", floats, V::max(W::f(o.a), W::f(o.b))),
    OPENWORK_F("min_magnitude", floats, V::min_magnitude(W::f(o.a), V::set1(5.5f))),
    OPENWORK_F("rint", floats, V::rint(W::f(o.a))),
    OPENWORK_F("all_at_most", floats, V::all_at_most(W::f(o.a), W::floats(o.b)[0]) ? 1.0f : 0.0f),
    OPENWORK_F("all_at_most of moderate numbers", moderate, V::all_at_most(W::f(o.a), 900.0f) ? 1.0f : 0.0f),
    OPENWORK_F("lookup16", floats, V::lookup16(W::f(o.a), V::bits(W::f(o.b)))),
    OPENWORK_F("reduce_add", moderate, V::reduce_add(W::f(o.a))),
    OPENWORK_F("reduce_add of extremes", floats, V::reduce_add(W::f(o.a))),
    OPENWORK_F("reduce_max", moderate, V::reduce_max(W::f(o.a))),
    {"transpose", Draw::moderate, true, W::transpose},
    OPENWORK_I("bits", floats, V::bits(W::f(o.a))),
    OPENWORK_F("as_floats", floats, V::as_floats(V::bits(W::f(o.a)))),
    OPENWORK_F("to_f32", integers, V::to_f32(W::i(o.a))),
    OPENWORK_I("to_i32", whole, V::to_i32(W::f(o.a))),
    OPENWORK_I("round_i32", below, V::round_i32(W::f(o.a))),
    OPENWORK_I("add of integers", integers, V::add(W::i(o.a), W::i(o.b))),
    OPENWORK_I("max of integers", integers, V::max(W::i(o.a), W::i(o.b))),
    OPENWORK_F("add_exponent", exponents, V::add_exponent(W::f(o.a), W::i(o.b))),
    OPENWORK_I("times_power", powers, V::round_i32(V::times_power(W::f(o.a), W::f(o.b)))),
    OPENWORK_I("pair", pairs, V::pair(W::i(o.a), W::i(o.b))),
    OPENWORK_I("dot_pairs", pairs, V::dot_pairs(W::i(o.c), W::i(o.a), W::i(o.b))),
    OPENWORK_B("window4", bytes, V::window4(o.a + 1)),
    OPENWORK_B("window8", index8, V::shuffle16(V::window8(o.a + 1), W::b(o.b))),
    OPENWORK_B("window16", bytes, V::window16(o.a + 1)),
    OPENWORK_B("expand2", bytes, V::expand2(o.a + 1)),
    OPENWORK_B("expand4", bytes, V::expand4(o.a + 1)),
    OPENWORK_B("repeat_rows of 1", bytes, V::template repeat_rows<1>(o.a)),
    OPENWORK_B("repeat_rows of 2", bytes, V::template repeat_rows<2>(o.a + 1)),
    OPENWORK_B("repeat_rows of 4", bytes, V::template repeat_rows<4>(o.a + 1)),
    {"store_rows", Draw::bytes, false, W::store_rows},
    {"store_rows of 4", Draw::bytes, false, W::store_quarters},
    {"zip_quarters", Draw::bytes, false, W::zip_quarters},
    {"sums of bytes", Draw::bytes, false, W::sums},
    OPENWORK_B("load_bytes_part", bytes, V::load_bytes_part(o.a, 4 * o.n)),
    {"store_bytes_part", Draw::bytes, false,
     [](const Operands& o, Result& r) { V::store_bytes_part(r.first, W::b(o.a), o.n % 2 ? 16 : 3 * o.n); }},
    OPENWORK_B("set1_u8", bytes, V::set1_u8(o.a[0])),
    OPENWORK_B("min_u8", bytes, V::min_u8(W::b(o.a), W::b(o.b))),
    OPENWORK_B("max_u8", bytes, V::max_u8(W::b(o.a), W::b(o.b))),
    OPENWORK_B("bit_xor", bytes, V::bit_xor(W::b(o.a), W::b(o.b))),
    {"lookup256", Draw::bytes, false, W::lookup256},
    OPENWORK_I("load_u8", bytes, V::load_u8(o.a)),
    OPENWORK_I("load_u8_part", bytes, V::load_u8_part(o.a, o.n)),
    {"pack_u8", Draw::integers, false,
     [](const Operands& o, Result& r) {
       const I32Of<V> v[4] = {W::i(o.a), V::to_i32(V::min(V::max(V::to_f32(W::i(o.b)), V::set1(-300.0f)), V::set1(155.0f))),
                              V::load_u8(o.c), W::i(o.c)};
       W::put_bytes(r.first, V::pack_u8(v, 100));
     }},
    OPENWORK_F("load_bf16", moderate, V::load_bf16(W::words(o.a))),
    OPENWORK_F("load_bf16_part", moderate, V::load_bf16_part(W::words(o.a), o.n)),
    {"store_bf16", Draw::floats, false, [](const Operands& o, Result& r) { V::store_bf16(W::words(r.first), W::f(o.a)); }},
    {"store_bf16_part", Draw::floats, false,
     [](const Operands& o, Result& r) { V::store_bf16_part(W::words(r.first), W::f(o.a), o.n); }},
    OPENWORK_F("abs", floats, V::abs(W::f(o.a))),
    OPENWORK_F("copy_sign", floats, V::copy_sign(W::f(o.a), W::f(o.b))),
    OPENWORK_I("shift_right", integers, V::template shift_right<5>(W::i(o.a))),
    OPENWORK_B("shuffle16", index16, V::shuffle16(V::window16(o.a), W::b(o.b))),
    {"shuffle64", Draw::index64, false, shuffle64<V>()},
    {"dot", Draw::weights, false, W::dot},
    {"dot of weights that all lanes share", Draw::weights, false, W::dot_of_one_quad},
    OPENWORK_F("dot_bf16", floats, V::dot_bf16(W::f(o.c), W::b(o.a), W::b(o.b))),
    {"transpose of bytes", Draw::bytes, false, W::transpose_bytes},
    {"taps4", Draw::bytes, false, W::taps4},
    {"taps2", Draw::bytes, false, W::taps2},
    {"interleave", Draw::integers, false,
     [](const Operands& o, Result& r) {
       I32Of<V> x = W::i(o.a), y = W::i(o.b);
       V::interleave(x, y);
       W::put_i32(r.first, x);
       W::put_i32(r.second, y);
     }},
    {"interleave of floats", Draw::floats, true,
     [](const Operands& o, Result& r) {
       typename V::F32 x = W::f(o.a), y = W::f(o.b);
       V::interleave(x, y);
       W::put(r.first, x);
       W::put(r.second, y);
     }},
};

#undef OPENWORK_F
#undef OPENWORK_I
#undef OPENWORK_B

template <class V>
constexpr Vocabulary vocabulary_of() {
  return {V::kName, kWords<V>, static_cast<int>(sizeof kWords<V> / sizeof(Word))};
}

}  // namespace openwork::test
