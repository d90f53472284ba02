// Each word of each instruction set against the scalar one, which is the word's meaning: the same bits.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "test/harness.h"
#include "test/vocabulary.h"

namespace openwork::test {

#define OPENWORK_ISA(name, Symbol, lacks) extern const Vocabulary k##Symbol##Vocabulary;
#include "kernels/isas.inc"
#undef OPENWORK_ISA

namespace {

struct Isa {
  const char* name;
  const Vocabulary* vocabulary;
};
constexpr Isa kIsas[] = {
#define OPENWORK_ISA(name, Symbol, lacks) {#name, &k##Symbol##Vocabulary},
#include "kernels/isas.inc"
#undef OPENWORK_ISA
};

// With a matrix unit beside them they have the words of what they are based on.
constexpr Isa kUnits[] = {
#define OPENWORK_ISA(name, Symbol, lacks)
#define OPENWORK_UNIT(name, Symbol, Base, emulates, lacks) {#name, &k##Base##Vocabulary},
#include "kernels/isas.inc"
#undef OPENWORK_ISA
};

const Vocabulary* find(const std::string& isa) {
  for (const Isa& row : kIsas)
    if (row.name == isa) return row.vocabulary;
  for (const Isa& row : kUnits)
    if (row.name == isa) return row.vocabulary;
  return nullptr;
}

struct Drawing {
  std::mt19937 rng;

  int below(int n) { return static_cast<int>(rng() % static_cast<unsigned>(n)); }
  int32_t integer(int32_t most) { return static_cast<int32_t>(rng() % (2 * static_cast<uint32_t>(most) + 1)) - most; }
  float moderate() { return std::ldexp(static_cast<float>(integer(1 << 23) * 2 + 1), below(20) - 34); }

  float any_float() {
    constexpr float inf = std::numeric_limits<float>::infinity();
    static constexpr float kExtremes[] = {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, -0.5f, 1.5f, 2.5f, inf, -inf, 0x1p-149f, -0x1p-126f, 0x1p31f,
                                          -0x1p31f, 0x1.fffffep+127f, -0x1.fffffep+127f, 254.5f, -119.5f, 0x1.8p+23f};
    if (below(8) == 0) return std::numeric_limits<float>::quiet_NaN();
    if (below(3) == 0) return kExtremes[below(std::size(kExtremes))];
    if (below(2) == 0) return moderate();
    const uint32_t bits = rng();
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return std::isnan(v) ? 3.0f : v;
  }

  float a_float(Draw draw, bool second) {
    switch (draw) {
      case Draw::moderate:
      case Draw::exponents: return moderate();
      case Draw::whole: return static_cast<float>(integer(1 << 24));
      case Draw::below: {
        const float v = any_float();
        return v >= 0x1p31f ? 0x1.fffffep+30f : v;
      }
      case Draw::powers: return second ? static_cast<float>(-below(200)) : 1.0f + std::fabs(moderate()) * 60.0f;
      default: return any_float();
    }
  }

  int32_t an_integer(Draw draw) {
    if (draw == Draw::pixels) return below(256);
    if (draw == Draw::exponents) return integer(60);
    if (draw == Draw::pairs)
      return static_cast<int32_t>(static_cast<uint32_t>(integer(16383)) << 16 | (static_cast<uint32_t>(integer(16383)) & 0xffffu));
    return integer(1 << 28);
  }

  uint8_t a_byte(Draw draw, bool second) {
    static constexpr uint8_t kEnds[] = {0, 127, 128, 129, 255};
    const int v = below(2) ? below(256) : kEnds[below(std::size(kEnds))];
    if (!second) return static_cast<uint8_t>(v);
    if (draw == Draw::index8) return v & 7;
    if (draw == Draw::index16) return v & 15;
    if (draw == Draw::index64) return v & 63;
    return static_cast<uint8_t>(draw == Draw::weights && v == 128 ? 127 : v);
  }

  void fill(Draw draw, bool second, bool third, uint8_t (&to)[64]) {
    const bool integers = draw == Draw::integers || draw == Draw::pixels || draw == Draw::pairs ||
                          (draw == Draw::exponents && second) || (draw == Draw::weights && third);
    for (int lane = 0; lane < 16; ++lane) {
      const float f = a_float(draw, second);
      const int32_t i = third ? integer(1 << 28) : an_integer(draw);
      std::memcpy(to + 4 * lane, integers ? static_cast<const void*>(&i) : &f, 4);
    }
    if (draw >= Draw::bytes && !integers)
      for (auto& byte : to) byte = a_byte(draw, second);
  }

  Operands operands(Draw draw) {
    Operands o;
    fill(draw, false, false, o.a);
    fill(draw, true, false, o.b);
    fill(draw, false, true, o.c);
    o.n = below(17);
    return o;
  }
};

bool same(const uint8_t (&x)[64], const uint8_t (&y)[64], bool floats) {
  for (int lane = 0; lane < 16; ++lane) {
    if (std::memcmp(x + 4 * lane, y + 4 * lane, 4) == 0) continue;
    float a, b;
    std::memcpy(&a, x + 4 * lane, 4);
    std::memcpy(&b, y + 4 * lane, 4);
    if (!floats || !std::isnan(a) || !std::isnan(b)) return false;
  }
  return true;
}

// How many of `count` random calls have other results than the scalar word.
int differences(const Word& word, const Word& meaning, int count) {
  Drawing drawing{std::mt19937(std::hash<std::string>()(word.name))};
  int wrong = 0;
  for (int i = 0; i < count; ++i) {
    const Operands o = drawing.operands(word.draw);
    Result got = {}, expected = {};
    word.run(o, got);
    meaning.run(o, expected);
    wrong += !same(got.first, expected.first, word.floats) || !same(got.second, expected.second, word.floats);
  }
  return wrong;
}

}  // namespace

TEST(words_of_every_instruction_set_mean_what_the_scalar_ones_do) {
  for (const KernelTable* table : available_tables()) {
    const Vocabulary* v = find(table->isa);
    CHECK_SAY(v, std::string("a vocabulary of ") + table->isa);
    for (int i = 0; v && i < v->count; ++i) {
      const Word &word = v->words[i], &meaning = kScalarVocabulary.words[i];
      if (!word.run) continue;
      const int wrong = differences(word, meaning, 400);
      CHECK_SAY(wrong == 0, std::string(table->isa) + ": " + word.name + " differs in " + std::to_string(wrong) + " of 400 calls");
    }
  }
}

TEST(every_instruction_set_bears_the_name_of_its_row) {
  for (const Isa& row : kIsas) CHECK_SAY(std::string(row.vocabulary->isa) == row.name, row.name);
  for (const KernelTable* table : available_tables()) CHECK_SAY(find(table->isa), table->isa);
}

// Else a build or an emulator that lost an instruction set would pass without it.
TEST(the_instruction_set_that_the_environment_names_is_the_one_that_runs) {
  const char* forced = std::getenv("OPENWORK_ISA");
  CHECK_SAY(choose_table().isa == (forced ? std::string(forced) : available_tables().front()->isa), forced ? forced : "");
}

TEST(a_word_with_another_meaning_is_found) {
  const auto named = [](const std::string& name) {
    for (int i = 0; i < kScalarVocabulary.count; ++i)
      if (kScalarVocabulary.words[i].name == name) return kScalarVocabulary.words[i];
    throw std::invalid_argument("Expected a word of the vocabulary, found \"" + name + "\".");
  };
  CHECK(differences(named("min"), named("max"), 50) > 0);
  CHECK(differences(named("expand2"), named("expand4"), 50) > 0);
  CHECK(differences(named("max"), named("max"), 50) == 0);
}

}  // namespace openwork::test
