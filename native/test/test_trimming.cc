// Texts without their padding: what may be left out, how a batch is cut, and that no bit changes by it.
#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "test/harness.h"

namespace openwork {
namespace {

constexpr int64_t kWidth = 32, kWords = 50, kLongest = 160;

Tensor tensor(const std::vector<float>& v, std::vector<int64_t> shape) { return {DType::f32, v.data(), std::move(shape), nullptr}; }

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> made(static_cast<size_t>(count));
  for (float& v : made) v = normal(rng);
  return made;
}

// A small encoder of texts, whose parts a test may change.
struct Encoder {
  Program program{*available_tables().front()};
  int ids = program.value(DType::i64, {-1, -2}), mask = program.value(DType::i64, {-1, -2});
  int y = program.value(DType::f32, {-1, kWidth});

  int floats(int64_t width = kWidth) { return program.value(DType::f32, {-1, -2, width}); }

  int embedded() {
    static const std::vector<float> word = random_floats(kWords * kWidth, 1), position = random_floats(kLongest * kWidth, 2);
    const int x = floats();
    program.step({"embedding_sum", "e", {{"ids", {ids}}}, {{"y", {x}}},
                  {{{"word", tensor(word, {kWords, kWidth})}, {"position", tensor(position, {kLongest, kWidth})}}, {}}});
    return x;
  }
  int wide(int x) {
    static const std::vector<float> weight = random_floats(3 * kWidth * kWidth, 3);
    const int q = floats(3 * kWidth);
    const auto packed = PackedWeights::pack({3 * kWidth, kWidth}, Type::f32, weight.data(), Form::dense, program.table());
    program.step({"linear", "l", {{"x", {x}}}, {{"y", {q}}}, {{}, {{"activation", "none"}}}, {{packed, -1}}});
    return q;
  }
  int attended(int q, bool masked = true) {
    const int x = floats();
    const Given given{{}, {{"heads", int64_t{2}}, {"scale", 0.25}}};
    if (masked)
      program.step({"attention", "a", {{"q", {q}}, {"mask", {mask}}}, {{"y", {x}}}, given});
    else
      program.step({"attention", "a", {{"q", {q}}}, {{"y", {x}}}, given});
    return x;
  }
  int added(int a, int b) {
    const int sum = floats();
    program.step({"add", "s", {{"a", {a}}, {"b", {b}}}, {{"y", {sum}}}, {{}, {{"activation", "none"}}}});
    return sum;
  }
  void pooled(int x) { program.step({"mean_pool", "p", {{"x", {x}}, {"mask", {mask}}}, {{"y", {y}}}}); }
  void first(int x, int64_t end = 1) {
    const int cut = program.value(DType::f32, {-1, 1, kWidth});
    program.step({"slice", "c", {{"x", {x}}}, {{"y", {cut}}}, {{}, {{"axis", int64_t{1}}, {"begin", end - 1}, {"end", end}}}});
    program.step({"reshape", "r", {{"x", {cut}}}, {{"y", {y}}}, {{}, {{"shape", std::vector<int64_t>{0, -1}}}}});
  }
  std::shared_ptr<const Program> finished(bool first_alone = false) {
    const int x = embedded(), sum = added(attended(wide(x)), x);
    if (first_alone)
      first(sum);
    else
      pooled(sum);
    program.finish({ids, mask}, {y});
    // The program is the encoder's own.
    return {std::shared_ptr<const Program>{}, &program};
  }
};

struct Batch {
  int64_t count, length;
  std::vector<int64_t> ids, mask;

  Batch(const std::vector<int64_t>& lengths, int64_t padded, unsigned seed = 7)
      : count(static_cast<int64_t>(lengths.size())), length(padded) {
    std::mt19937 rng(seed);
    for (const int64_t kept : lengths)
      for (int64_t i = 0; i < padded; ++i) {
        ids.push_back(static_cast<int64_t>(rng() % kWords));
        // A hole within a text is no padding.
        mask.push_back(i < kept && (i == kept - 1 || rng() % 8) ? 1 : 0);
      }
  }
  std::vector<float> run(const std::shared_ptr<const Program>& program, int threads) const {
    Context context(program, threads, 4);
    const std::vector<int64_t> dims{count, length};
    const auto out = context.run({{DType::i64, dims, ids.data()}, {DType::i64, dims, mask.data()}});
    const auto* data = out[0].buffer.as<float>();
    return {data, data + count * kWidth};
  }
  Batch only(int64_t text, int64_t kept) const {
    Batch one({kept}, kept);
    std::copy_n(ids.begin() + text * length, kept, one.ids.begin());
    std::copy_n(mask.begin() + text * length, kept, one.mask.begin());
    return one;
  }
};

bool trims(const std::function<void(Encoder&)>& build) {
  Encoder encoder;
  build(encoder);
  return find_trimming(encoder.program).has_value();
}

}  // namespace

TEST(texts_on_threads_without_their_padding_have_the_bits_of_each_alone) {
  const std::vector<std::vector<int64_t>> batches{
      {160, 3, 50, 17, 90, 90, 8, 1, 120, 33, 40, 41, 5, 77, 64, 12}, {12, 5}, {9}, {160, 160, 1}, std::vector<int64_t>(40, 7)};
  for (const bool first_alone : {false, true})
    for (const auto& lengths : batches) {
      Encoder encoder;
      const auto program = encoder.finished(first_alone);
      const Batch batch(lengths, 160);
      std::vector<float> expected;
      for (size_t i = 0; i < lengths.size(); ++i) {
        const auto one = batch.only(static_cast<int64_t>(i), lengths[i]).run(program, 1);
        expected.insert(expected.end(), one.begin(), one.end());
      }
      for (const int threads : {1, 2, 3})
        CHECK_SAY(batch.run(program, threads) == expected,
                  std::to_string(lengths.size()) + " texts, " + std::to_string(threads) + " threads");
    }
}

TEST(texts_without_any_kept_position_and_what_stands_in_the_padding_change_no_other) {
  Encoder encoder;
  const auto program = encoder.finished();
  Batch batch({30, 4, 100, 60}, 120);
  const auto expected = batch.run(program, 2);
  for (size_t i = 0; i < batch.ids.size(); ++i)
    if (static_cast<int64_t>(i) % 120 >= 100) batch.ids[i] = kWords - 1;
  CHECK(batch.run(program, 2) == expected);
  std::fill_n(batch.mask.begin() + 120, 120, 0);
  const auto without = batch.run(program, 2);
  CHECK(std::equal(without.begin(), without.begin() + kWidth, expected.begin()));
  CHECK(std::all_of(without.begin() + kWidth, without.begin() + 2 * kWidth, [](float v) { return v == 0.0f; }));
  CHECK(std::equal(without.begin() + 2 * kWidth, without.end(), expected.begin() + 2 * kWidth));
}

TEST(padding_stays_where_something_may_know_of_it) {
  CHECK(trims([](Encoder& e) { e.finished(); }));
  CHECK(trims([](Encoder& e) { e.finished(true); }));
  // Positions are given.
  CHECK(!trims([](Encoder& e) {
    const int x = e.embedded(), sum = e.added(e.attended(e.wide(x)), x);
    e.pooled(sum);
    e.program.finish({e.ids, e.mask}, {e.y, sum});
  }));
  // An attention sees all keys.
  CHECK(!trims([](Encoder& e) {
    const int x = e.embedded();
    e.pooled(e.added(e.attended(e.wide(x), false), x));
    e.program.finish({e.ids, e.mask}, {e.y});
  }));
  // Another mask than the pool's.
  CHECK(!trims([](Encoder& e) {
    const int other = e.program.value(DType::i64, {-1, -2}), x = e.embedded();
    const int sum = e.attended(e.wide(x));
    e.program.step({"mean_pool", "p", {{"x", {sum}}, {"mask", {other}}}, {{"y", {e.y}}}});
    e.program.finish({e.ids, e.mask, other}, {e.y});
  }));
  // A mean over all positions, padding among them.
  CHECK(!trims([](Encoder& e) {
    const int x = e.attended(e.wide(e.embedded()));
    e.program.add_step({"mean", {x}, {e.y}, [](const Sizes&) { return Work{}; }});
    e.program.finish({e.ids, e.mask}, {e.y});
  }));
  // No free length.
  CHECK(!trims([](Encoder& e) {
    const int mask = e.program.value(DType::i64, {-1, 16}), x = e.program.value(DType::f32, {-1, 16, kWidth});
    e.program.step({"mean_pool", "p", {{"x", {x}}, {"mask", {mask}}}, {{"y", {e.y}}}});
    e.program.finish({e.ids, e.mask, x, mask}, {e.y});
  }));
}

TEST(a_cut_from_the_front_keeps_as_many_positions) {
  Encoder encoder;
  const int x = encoder.embedded();
  encoder.first(encoder.added(encoder.attended(encoder.wide(x)), x), 20);
  encoder.program.finish({encoder.ids, encoder.mask}, {encoder.y});
  const auto found = find_trimming(encoder.program);
  CHECK(found && found->least == 20);
  const std::shared_ptr<const Program> program{std::shared_ptr<const Program>{}, &encoder.program};
  const Batch batch({3, 100, 25}, 100);
  const auto together = batch.run(program, 2), alone = batch.only(0, 20).run(program, 1);
  CHECK(std::equal(alone.begin(), alone.end(), together.begin()));
  const std::string refused = test::refusal([&] { batch.only(0, 10).run(program, 1); });
  CHECK_SAY(refused.find("at least 20") != std::string::npos, refused);
}

TEST(texts_are_cut_into_groups_that_hold_each_once) {
  std::mt19937 rng(3);
  for (int repeat = 0; repeat < 300; ++repeat) {
    const int64_t padded = 1 + static_cast<int64_t>(rng() % 300);
    std::vector<int64_t> lengths(1 + rng() % 40);
    for (auto& length : lengths) length = 1 + static_cast<int64_t>(rng() % static_cast<unsigned>(padded));
    const int threads = 1 + static_cast<int>(rng() % 4);
    const Texts texts = cut_texts(lengths, padded, threads);
    if (texts.groups.empty()) continue;
    std::vector<int> seen(lengths.size(), 0);
    int64_t next = 0, rows = 0;
    for (const TextGroup& group : texts.groups) {
      CHECK(group.begin == next && group.count > 0 && group.length <= padded);
      next += group.count;
      rows += group.count * group.length;
      for (int64_t i = group.begin; i < next; ++i) {
        const auto text = static_cast<size_t>(texts.order[static_cast<size_t>(i)]);
        ++seen[text];
        CHECK(lengths[text] <= group.length);
      }
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
    CHECK(rows < padded * static_cast<int64_t>(lengths.size()));
    CHECK(texts.apart || texts.groups.size() == 1);
  }
  CHECK(cut_texts({128, 128, 127}, 128, 2).groups.empty());
  CHECK(cut_texts({}, 128, 2).groups.empty());
}

}  // namespace openwork
