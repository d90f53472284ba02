// What a step writes where it reads: which values share a place, and that the bits are those of places of their own.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "test/branch_runs.h"
#include "test/convolution_problems.h"
#include "test/guarded.h"
#include "test/harness.h"
#include "test/tables.h"

namespace openwork {
namespace {

using test::Branches, test::Build, test::build, test::run, test::run_guarded;

constexpr int64_t kFree = -1;

// Steps that compute nothing, to look at where their values lie. A step writes the first value that it reads in place.
struct Flow {
  Program program{*available_tables().front()};

  int value(const std::vector<int64_t>& dims = {kFree, 5}, DType dtype = DType::f32) { return program.value(dtype, dims); }
  int step(std::vector<Read> reads, int made) {
    Step step{"step", reads, {made}, [](const Sizes&) { return Work{}; }};
    step.in_place = {{reads[0].value, made}};
    program.add_step(step);
    return made;
  }
  int step(std::vector<Read> reads) { return step(std::move(reads), value()); }
  int view(int from, const std::vector<int64_t>& dims = {kFree, 5}) {
    Step step{"view", {from}, {value(dims)}, [](const Sizes&) { return Work{}; }};
    step.view = true;
    program.add_step(step);
    return step.writes[0];
  }
  void finish(int input, const std::vector<int>& outputs) { program.finish({input}, outputs); }
  bool share(int a, int b) const { return program.home(a) == program.home(b); }
};

// x, an input; r = f(x); y over r; z of y.
struct Chain : Flow {
  int x = value(), r, y = kAbsent;
  Chain() : r(step({x})) {}
  // y of `reads`, of which the first may be written over.
  Chain& over(std::vector<Read> reads) {
    y = step(std::move(reads));
    return *this;
  }
  // The output, of y and another value.
  bool shares_to_the_end(int also = kAbsent) {
    finish(x, {step({y, also})});
    return share(r, y);
  }
};

TEST(what_is_read_for_the_last_time_is_written_over) {
  Chain chain;
  chain.over({chain.r, chain.x});
  const int next = chain.step({chain.y}), last = chain.step({next, chain.x});
  chain.finish(chain.x, {last});
  CHECK(chain.share(chain.r, chain.y) && chain.share(chain.y, next) && !chain.share(next, last) && !chain.share(chain.x, chain.r));
  const auto plan = make_plan(chain.program, {{7}}, 1);
  CHECK(plan->scratch_offset == padded_bytes(7 * 5 * 4));
}

TEST(what_is_read_again_is_not_written_over) {
  Chain later;
  later.over({later.r});
  CHECK(!later.shares_to_the_end(later.r));
  Chain twice;
  twice.over({twice.r, twice.r});
  CHECK(!twice.shares_to_the_end());
  // Behind its rows, where another thread writes.
  Chain ahead;
  ahead.over({{ahead.r, true}});
  CHECK(!ahead.shares_to_the_end());
  Chain checked;
  checked.over({{checked.r, false, true}});
  CHECK(!checked.shares_to_the_end());
}

TEST(what_the_caller_has_is_neither_written_over_nor_written_early) {
  Chain input;
  input.y = input.step({input.x});
  CHECK(!input.shares_to_the_end() && !input.share(input.x, input.y));
  Chain output;
  output.over({output.r});
  output.finish(output.x, {output.step({output.y}), output.r});
  CHECK(!output.share(output.r, output.y));
  Chain made;
  made.over({made.r});
  made.finish(made.x, {made.y});
  CHECK(!made.share(made.r, made.y));
  Flow viewed;
  const int x = viewed.value(), view = viewed.view(x), y = viewed.step({view});
  viewed.finish(x, {viewed.step({y})});
  CHECK(viewed.share(x, view) && !viewed.share(view, y));
}

TEST(views_end_together) {
  Chain dead;
  dead.over({dead.view(dead.r)});
  const int behind = dead.view(dead.y), last = dead.step({behind});
  dead.finish(dead.x, {dead.step({last, dead.x})});
  CHECK(dead.share(dead.r, dead.y) && dead.share(dead.y, behind) && dead.share(behind, last));
  Chain read_later;
  read_later.over({read_later.view(read_later.r)});
  CHECK(!read_later.shares_to_the_end(read_later.r));
  // The same bytes under two names.
  Chain twice;
  const int view = twice.view(twice.r);
  twice.over({twice.r, view});
  CHECK(!twice.shares_to_the_end());
  // A view of what is made lies in the caller's memory.
  Chain output;
  output.over({output.r});
  output.finish(output.x, {output.view(output.y)});
  CHECK(!output.share(output.r, output.y));
}

TEST(only_the_same_elements_share_a_place) {
  const auto shares = [](const std::vector<int64_t>& read, DType from, const std::vector<int64_t>& made, DType to) {
    Flow flow;
    const int x = flow.value({-1, 5}), other = flow.value({-2, 5});
    const int r = flow.step({x, other}, flow.value(read, from)), y = flow.step({r}, flow.value(made, to));
    const int z = flow.step({y}, flow.value(made, DType::i64));
    flow.program.finish({x, other}, {z});
    return flow.share(r, y);
  };
  CHECK(shares({-1, 5}, DType::f32, {-1, 5}, DType::f32) && shares({2, 5}, DType::u8, {2, 5}, DType::u8));
  CHECK(!shares({-1, 5}, DType::f32, {-2, 5}, DType::f32) && !shares({2, 6}, DType::f32, {3, 4}, DType::f32));
  CHECK(!shares({-1, 5}, DType::f32, {-1, 5}, DType::bf16) && !shares({-1, 5}, DType::f32, {-1, 5}, DType::u8));
  CHECK(!shares({2, 8}, DType::u8, {2, 4}, DType::bf16));
}

TEST(a_place_is_written_over_once_by_a_step) {
  Flow flow;
  const int x = flow.value(), r = flow.step({x}), other = flow.step({x}), first = flow.value(), second = flow.value();
  Step step{"step", {r, other}, {first, second}, [](const Sizes&) { return Work{}; }};
  step.in_place = {{r, first}, {other, first}, {r, second}};
  flow.program.add_step(step);
  flow.finish(x, {flow.step({x, first, second})});
  CHECK(flow.share(r, first) && !flow.share(other, first) && !flow.share(r, second) && !flow.share(other, second));
}

TEST(the_second_choice_is_taken_where_the_first_lives_on) {
  Flow flow;
  const int x = flow.value(), a = flow.step({x}), b = flow.step({x}), y = flow.value();
  Step step{"step", {a, b}, {y}, [](const Sizes&) { return Work{}; }};
  step.in_place = {{a, y}, {b, y}};
  flow.program.add_step(step);
  flow.finish(x, {flow.step({y, a})});
  CHECK(flow.share(b, y) && !flow.share(a, y));
}

TEST(a_piece_of_wider_rows_is_not_written_over) {
  Flow flow;
  const int x = flow.value(), r = flow.value(), whole = flow.value({kFree, 10});
  const auto nothing = [](const Sizes&) { return Work{}; };
  Step piece{"piece", {x}, {r}, nothing}, join{"join", {{r, false, false, true}, {x, false, false, true}}, {whole}, nothing};
  piece.strided = true;
  join.pieces = {{r, 0}};
  flow.program.add_step(piece);
  flow.program.add_step(join);
  const int y = flow.step({{r, false, false, true}});
  flow.finish(x, {flow.step({y})});
  CHECK(flow.share(r, whole) && !flow.share(r, y));
}

// Pairs of a value and what is written over it, views aside.
int64_t count_shared(const Program& program) {
  int64_t found = 0;
  for (const Step& step : program.steps())
    for (const InPlace& pair : step.in_place) found += program.home_of(pair.read) == program.home_of(pair.made);
  return found;
}

// `shared`: what is written in place.
void check(const std::string& what, int64_t shared, const Build& steps) { test::check_runs(what, steps, count_shared, shared); }

TEST(residuals_are_written_in_place_on_threads) {
  for (const DType dtype : {DType::u8, DType::f32, DType::bf16})
    for (const int64_t n : {1, 16, 21, 37, 70})
      for (const int64_t kernel : {1, 3})
        check("residual of " + std::string(dtype_name(dtype)) + ", " + std::to_string(n) + " channels", 1, [=](Branches& b) {
          const int residual = b.conv(b.x, n, 1, dtype);
          return std::vector{b.conv(b.x, n, 1, DType::u8, b.conv(b.x, n, kernel, dtype, residual))};
        });
}

TEST(blocks_of_residuals_lie_in_one_place_on_threads) {
  const auto block = [](Branches& b, int x) { return b.conv(b.conv(x, 9, 3), b.channels(x), 1, DType::u8, x); };
  check("two blocks", 2, [&](Branches& b) {
    const int stem = b.conv(b.x, 33, 3);
    return std::vector{b.pool("max_pool", block(b, block(b, stem)))};
  });
  check("a block's sum is an output", 1, [&](Branches& b) {
    const int first = block(b, b.conv(b.x, 33, 3)), second = block(b, first);
    return std::vector{b.pool("max_pool", block(b, second)), second};
  });
  check("sums", 2, [](Branches& b) {
    const int one = b.conv(b.x, 13, 1), other = b.conv(b.x, 13, 3), third = b.conv(b.x, 13, 1);
    return std::vector{b.pool("max_pool", b.add(other, b.add(one, other))), b.conv(third, 3, 1)};
  });
}

// All blocks add to one place, beside the one of what is within a block.
TEST(blocks_of_residuals_need_one_place_for_their_sums) {
  Branches b(*available_tables().front(), 3);
  constexpr int64_t kSum = 33, kWithin = 9, kBatch = 2;
  int sum = b.conv(b.x, kSum, 3);
  for (int i = 0; i < 3; ++i) sum = b.conv(b.conv(sum, kWithin, 3), kSum, 1, DType::u8, sum);
  b.program->finish({b.x}, {b.pool("max_pool", sum)});
  const int64_t pixels = kBatch * test::kHeight * test::kWidth;
  CHECK(make_plan(*b.program, {{kBatch}}, 1)->scratch_offset == padded_bytes(pixels * kSum) + padded_bytes(pixels * kWithin));
}

TEST(pieces_of_rows_are_not_written_over_while_they_are_read) {
  check("what is made lies inside of wider rows", 0, [](Branches& b) {
    const int residual = b.conv(b.x, 12, 1);
    return std::vector{b.pool("max_pool", b.concat({b.conv(b.x, 12, 3, DType::u8, residual), b.conv(b.x, 9, 3)}))};
  });
  check("a whole whose pieces are dead", 1, [](Branches& b) {
    const int whole = b.concat({b.conv(b.x, 12, 1), b.conv(b.x, 9, 3)});
    return std::vector{b.pool("max_pool", b.conv(b.x, 21, 3, DType::u8, whole))};
  });
  check("a whole of which a piece is read later", 0, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1), whole = b.concat({b.conv(b.x, 9, 3), piece});
    const int y = b.conv(b.x, 21, 3, DType::u8, whole);
    return std::vector{b.pool("max_pool", y), b.conv_of_taps(piece, 4, 1)};
  });
}

// Steps on random values made before, so that some of them die and others do not.
std::vector<int> random_steps(Branches& b, std::mt19937& rng) {
  std::vector<int> made{b.conv(b.x, 24, 1), b.conv(b.x, 24, 3)};
  const auto any = [&] { return made[made.size() - 1 - rng() % std::min<size_t>(made.size(), 4)]; };
  for (int i = 0; i < 14; ++i) {
    const int from = any(), residual = any();
    switch (rng() % 5) {
      case 0: made.push_back(b.add(from, residual)); break;
      case 1: made.push_back(b.conv(b.concat({from, residual}), 24, 1, DType::u8, any())); break;
      case 2: made.push_back(b.pool("max_pool", from)); break;
      case 3: made.push_back(b.concat({b.slice(from, 0, 11), b.slice(residual, 5, 18)})); break;
      default: made.push_back(b.conv(from, 24, rng() % 2 ? 1 : 3, DType::u8, residual));
    }
  }
  std::vector<int> outputs{made.back()};
  if (const int other = any(); other != made.back()) outputs.push_back(other);
  return outputs;
}

TEST(random_programs_in_place_on_threads_give_the_bits_of_places_apart) {
  test::check_random_runs(random_steps, count_shared);
}

constexpr int64_t kWide = 37;

// Adds the step that is looked at to a program of [batch, height, width, channels] floats or bytes, from a value to another.
using AddStep = std::function<void(Program&, int from, int to)>;

// What it gives in place, or with places apart, for numbers that the step before it hands on.
std::vector<uint8_t> run_step(const KernelTable& table, DType dtype, const AddStep& add, bool in_place, int threads) {
  const std::vector<int64_t> dims{9, 3, 5, kWide}, free{-1, 3, 5, kWide};
  auto program = std::make_shared<Program>(table);
  const auto image = [&] { return program->value(dtype, free); };
  const int x = image(), from = image(), to = image(), y = image();
  const auto copy = [&](int a, int b) {
    program->step({"slice", "copy", {{"x", {a}}}, {{"y", {b}}}, {{}, {{"axis", 3}, {"begin", 0}, {"end", kWide}}}});
  };
  copy(x, from);
  add(*program, from, to);
  copy(to, y);
  program->finish({x}, in_place ? std::vector{y} : std::vector{y, from, to});
  CHECK(count_shared(*program) == in_place);
  std::mt19937 rng(23);
  const int64_t count = std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
  std::vector<uint8_t> bytes(static_cast<size_t>(count * dtype_bytes(dtype)));
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (size_t i = 0; i < bytes.size(); i += static_cast<size_t>(dtype_bytes(dtype))) {
    const float number = normal(rng);
    if (dtype == DType::f32)
      std::memcpy(&bytes[i], &number, sizeof number);
    else
      bytes[i] = static_cast<uint8_t>(rng());
  }
  const Guarded guarded(bytes.data(), bytes.size(), 0);
  const auto made = Context(program, threads, 1).run({{dtype, dims, guarded.data()}});
  const auto* data = made[0].buffer.as<uint8_t>();
  return {data, data + made[0].buffer.bytes()};
}

void check_step(const std::string& what, DType dtype, const AddStep& add) {
  for (const KernelTable* table : test::own_tables()) {
    const auto expected = run_step(*table, dtype, add, false, 1);
    for (const int threads : {1, 2, 3})
      CHECK_SAY(run_step(*table, dtype, add, true, threads) == expected,
                what + " on " + table->isa + ", " + std::to_string(threads) + " threads");
  }
}

AddStep unary(const char* op, const Given& given) {
  return [=](Program& p, int from, int to) { p.step({op, op, {{"x", {from}}}, {{"y", {to}}}, given}); };
}

TEST(steps_of_elements_and_rows_are_written_in_place_on_threads) {
  std::vector<float> numbers(kWide);
  std::iota(numbers.begin(), numbers.end(), -11.0f);
  std::vector<uint8_t> turned(256);
  for (size_t i = 0; i < turned.size(); ++i) turned[i] = static_cast<uint8_t>(255 - i / 2);
  const Tensor each{DType::f32, numbers.data(), {kWide}, nullptr};
  for (const char* op : {"relu", "hard_swish", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"}) check_step(op, DType::f32, unary(op, {}));
  check_step("clip", DType::f32, unary("clip", {{}, {{"alpha", -0.5}, {"beta", 1.5}}}));
  check_step("leaky_relu", DType::f32, unary("leaky_relu", {{}, {{"alpha", 0.25}}}));
  check_step("hard_sigmoid", DType::f32, unary("hard_sigmoid", {{}, {{"alpha", 0.2}, {"beta", 0.5}}}));
  check_step("softmax", DType::f32, unary("softmax", {}));
  check_step("l2_normalize", DType::f32, unary("l2_normalize", {{}, {{"epsilon", 1e-6}}}));
  check_step("p_relu", DType::f32, unary("p_relu", {{{"slope", each}}, {}}));
  check_step("layer_norm", DType::f32, unary("layer_norm", {{{"gamma", each}, {"beta", each}}, {{"epsilon", 1e-5}}}));
  check_step("lookup", DType::u8, unary("lookup", {{{"table", {DType::u8, turned.data(), {256}, nullptr}}}, {}}));
}

// The quantization of values of bytes.
Given quantization_of(DType dtype) {
  if (dtype != DType::u8) return {};
  return {{}, {{"a_scale", 0.05}, {"a_zero_point", 90}, {"b_scale", 0.05}, {"b_zero_point", 90},
               {"y_scale", 0.05}, {"y_zero_point", 90}}};
}

// The largest of the neighbours of each element, or of all.
int add_largest(Program& p, int from, bool all) {
  const Value& value = p.values()[static_cast<size_t>(from)];
  const auto twice = [](int64_t v) { return std::vector<int64_t>{v, v}; };
  const Given windows{{}, {{"kernel", twice(3)}, {"strides", twice(1)}, {"dilations", twice(1)}, {"pads", std::vector<int64_t>(4, 1)}}};
  const char* op = all ? "global_max_pool" : "max_pool";
  const int made = p.value(value.dtype, all ? std::vector<int64_t>{-1, 1, 1, kWide} : value.dims);
  p.step({op, "largest", {{"x", {from}}}, {{"y", {made}}}, all ? Given{} : windows});
  return made;
}

TEST(steps_of_two_values_are_written_over_either_on_threads) {
  for (const char* op : {"add", "multiply"})
    for (const DType dtype : {DType::f32, DType::u8}) {
      const auto step = [=](Program& p, int a, int b, int to) {
        p.step({op, op, {{"a", {a}}, {"b", {b}}}, {{"y", {to}}}, quantization_of(dtype)});
      };
      for (const bool spread : {false, true})
        check_step(std::string(op) + (spread ? ", b spread over a" : ", over a"), dtype,
                   [=](Program& p, int from, int to) { step(p, from, add_largest(p, from, spread), to); });
      check_step(std::string(op) + ", over b, as a is read again", dtype, [=](Program& p, int from, int to) {
        const int other = add_largest(p, from, false);
        step(p, other, from, to);
        add_largest(p, other, false);
      });
    }
  const std::vector<float> numbers(kWide, 1.5f);
  for (const int64_t count : {int64_t{1}, kWide})
    check_step("a constant", DType::f32, [&](Program& p, int from, int to) {
      p.step({"multiply", "m", {{"a", {from}}}, {{"y", {to}}}, {{{"constant", {DType::f32, numbers.data(), {count}, nullptr}}}, {}}});
    });
}

}  // namespace
}  // namespace openwork
