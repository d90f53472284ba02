// The thread pool, the placement of values, the cut of the work, and programs from end to end.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "runtime/context.h"
#include "runtime/linear/layer.h"
#include "test/guarded.h"
#include "test/harness.h"

namespace openwork {
namespace {

std::shared_ptr<const PackedWeights> random_weights(int64_t n, int64_t k, const KernelTable& table, std::mt19937& rng) {
  std::vector<int8_t> weight(n * k);
  for (auto& w : weight) w = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
  return PackedWeights::pack({n, k}, Type::i8, weight.data(), Form::dense, table);
}

Tensor tensor(const std::vector<float>& v, std::vector<int64_t> shape) { return {DType::f32, v.data(), std::move(shape), nullptr}; }

void add_relu(Program& program, int x, int y) { program.step({"relu", "relu", {{"x", {x}}}, {{"y", {y}}}}); }

}  // namespace

TEST(thread_pool_runs_every_unit_once) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (int64_t units = 0; units < 60; ++units) {
      std::vector<std::atomic<int>> calls(units);
      std::atomic<bool> thread_known{true};
      pool.run(units, [&](int64_t unit, int thread) {
        calls[unit].fetch_add(1);
        if (thread < 0 || thread >= threads) thread_known = false;
      });
      for (auto& c : calls) CHECK_SAY(c == 1, std::to_string(threads) + " threads, " + std::to_string(units) + " units");
      CHECK(thread_known);
    }
  }
}

TEST(thread_pool_wakes_from_sleep_and_survives_quick_runs) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 2000; ++i) {
    if (i % 200 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.run(1 + i % 7, [&](int64_t unit, int) { sum += unit + 1; });
  }
  int64_t expected = 0;
  for (int i = 0; i < 2000; ++i)
    for (int unit = 0; unit <= i % 7; ++unit) expected += unit + 1;
  CHECK(sum == expected);
}

TEST(thread_pools_come_and_go) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(4);
    if (i % 2) pool.run(5, [](int64_t, int) {});
  }
}

TEST(linear_partition_covers_the_output_once) {
  for (const int threads : {1, 2, 7})
    for (const int64_t rows : {1, 31, 128, 2048})
      for (const int64_t k : {1, 384, 1536, 60000})
        for (const int64_t groups : {1, 12, 48}) {
          const LinearPartition p = partition_linear({rows, k, groups, 64 * k, 1}, threads);
          int64_t covered = 0;
          for (int64_t unit = 0; unit < p.units(); ++unit) {
            const Block b = p.block(unit);
            CHECK(b.row_begin < b.row_end && b.group_begin < b.group_end && b.row_end <= rows && b.group_end <= groups);
            covered += (b.row_end - b.row_begin) * (b.group_end - b.group_begin);
          }
          CHECK_SAY(covered == rows * groups, std::to_string(rows) + " x " + std::to_string(groups));
        }
}

namespace {

// A chain of adds and layers with branches, so that values live side by side.
struct RandomProgram {
  std::shared_ptr<Program> program = std::make_shared<Program>(*available_tables().front());
  std::vector<int> floats;

  explicit RandomProgram(std::mt19937& rng) {
    const int x = program->value(DType::f32, {-1, 32});
    floats.push_back(x);
    for (int i = 0; i < 12; ++i) {
      const int a = floats[rng() % floats.size()], b = floats[rng() % floats.size()];
      const int y = program->value(DType::f32, {-1, 32});
      if (rng() % 3)
        program->step({"add", "add", {{"a", {a}}, {"b", {b}}}, {{"y", {y}}}});
      else
        add_relu(*program, a, y);
      floats.push_back(y);
    }
    program->finish({x}, {floats.back(), floats[floats.size() / 2]});
  }
};

}  // namespace

TEST(values_of_the_same_time_lie_apart) {
  std::mt19937 rng(5);
  for (int repeat = 0; repeat < 50; ++repeat) {
    const RandomProgram random(rng);
    const Program& program = *random.program;
    const auto plan = make_plan(program, {{7}}, 2);
    const int64_t bytes = padded_bytes(7 * 32 * 4);
    std::vector<int> last(program.values().size(), -1), first(program.values().size(), -1);
    for (int i = 0; i < static_cast<int>(program.steps().size()); ++i) {
      for (const int v : program.steps()[i].writes) first[v] = last[v] = i;
      for (const Read& read : program.steps()[i].reads) last[read.value] = i;
    }
    for (size_t a = 0; a < first.size(); ++a)
      for (size_t b = 0; b < a; ++b) {
        const bool together = first[a] <= last[b] && first[b] <= last[a];
        const int64_t i = plan->offset[a], j = plan->offset[b];
        // Only what ends with a step lies where it writes.
        if (program.home(static_cast<int>(a)) == program.home(static_cast<int>(b))) {
          CHECK(i == j && (last[a] <= first[b] || last[b] <= first[a]));
          continue;
        }
        if (together && i != kOutside && j != kOutside) CHECK(i + bytes <= j || j + bytes <= i);
        CHECK(i == kOutside || (i % kAlignment == 0 && i + bytes <= plan->scratch_offset));
      }
  }
}

TEST(plans_are_kept_and_the_oldest_goes) {
  std::mt19937 rng(6);
  const RandomProgram random(rng);
  PlanCache cache(*random.program, 1, 2);
  const auto one = cache.get({{1}}), two = cache.get({{2}});
  CHECK(cache.get({{1}}) == one);
  cache.get({{3}});
  CHECK(cache.get({{1}}) == one);
  CHECK(cache.get({{2}}) != two);
}

namespace {

// A quantized layer from float input, with caller's memory that ends at a page which may not be touched.
std::vector<uint8_t> run_layer(int threads, int64_t rows) {
  std::mt19937 rng(8);
  const KernelTable& table = *available_tables().front();
  auto program = std::make_shared<Program>(table);
  const int x = program->value(DType::u8, {-1, 37}), r = program->value(DType::f32, {-1, 50});
  const int y = program->value(DType::u8, {-1, 50});
  const std::vector<float> scale(50, 1e-3f), bias(50, 0.25f);
  const auto weights = random_weights(50, 37, table, rng);
  const Given given{{{"weight_scale", tensor(scale, {50})}, {"bias", tensor(bias, {50})}},
                    {{"x_scale", 1.0}, {"x_zero_point", 12}, {"activation", "gelu"}, {"y_scale", 0.1}, {"y_zero_point", 100}}};
  program->step({"linear", "l", {{"x", {x}}, {"residual", {r}}}, {{"y", {y}}}, given, {{weights, 8}, {weights, -1}}});
  program->finish({x, r}, {y});
  std::vector<uint8_t> bytes(rows * 37);
  for (auto& b : bytes) b = static_cast<uint8_t>(rng());
  std::vector<float> residual(rows * 50);
  for (auto& f : residual) f = static_cast<float>(rng() % 100) * 0.1f;
  const Guarded gx(bytes.data(), bytes.size(), 0), gr(residual.data(), residual.size() * 4, 0);
  Context context(program, threads, 4);
  const auto out = context.run({{DType::u8, {rows, 37}, gx.data()}, {DType::f32, {rows, 50}, gr.data()}});
  const auto* data = out[0].buffer.as<uint8_t>();
  return {data, data + rows * 50};
}

}  // namespace

TEST(inputs_are_not_read_behind_their_end_and_threads_change_no_bit) {
  for (const int64_t rows : {1, 5, 8, 9, 150}) {
    const auto one = run_layer(1, rows);
    CHECK(one == run_layer(2, rows));
    CHECK(one == run_layer(5, rows));
  }
}

namespace {

// Float in, float out, so that a large batch, free or fixed in the program, is run in slices; the caller's memory ends at a page
// which may not be touched.
std::vector<float> run_quantized(int threads, int64_t rows, bool fixed = false) {
  std::mt19937 rng(9);
  auto program = std::make_shared<Program>(*available_tables().front());
  const int64_t batch = fixed ? rows : -1;
  const int x = program->value(DType::f32, {batch, 40}), q = program->value(DType::u8, {batch, 40});
  const int y = program->value(DType::f32, {batch, 50});
  const std::vector<float> scale(50, 1e-3f);
  program->step({"quantize", "q", {{"x", {x}}}, {{"y", {q}}}, {{}, {{"y_scale", 0.05}, {"y_zero_point", 128}}}});
  const Given given{{{"weight_scale", tensor(scale, {50})}}, {{"x_scale", 1.0}, {"x_zero_point", 128}, {"activation", "none"}}};
  program->step({"linear", "l", {{"x", {q}}}, {{"y", {y}}}, given, {{random_weights(50, 40, program->table(), rng), -1}}});
  program->finish({x}, {y});
  std::vector<float> values(rows * 40);
  for (auto& v : values) v = static_cast<float>(static_cast<int>(rng() % 200) - 100) * 0.07f;
  const Guarded gx(values.data(), values.size() * sizeof(float), 0);
  Context context(program, threads, 4);
  const auto out = context.run({{DType::f32, {rows, 40}, gx.data()}});
  const auto* data = out[0].buffer.as<float>();
  return {data, data + rows * 50};
}

}  // namespace

TEST(slices_on_threads_change_no_bit) {
  const auto slices_of = [](int64_t rows, int threads) {
    auto program = std::make_shared<Program>(*available_tables().front());
    const int x = program->value(DType::f32, {-1, 40}), y = program->value(DType::f32, {-1, 40});
    add_relu(*program, x, y);
    program->finish({x}, {y});
    return slice_batch(*program, make_plan(*program, {{rows}}, threads)->sizes);
  };
  CHECK(slices_of(700, 2).count == 4 && slices_of(700, 2).size == 175);
  CHECK(slices_of(100, 2).count == 0 && slices_of(128, 1).count == 0 && slices_of(300, 1).count == 2);
  for (const int64_t rows : {127, 128, 256, 300, 700}) {
    const auto one = run_quantized(1, rows);
    // The first rows alone are not cut.
    const auto few = run_quantized(1, 100);
    CHECK(std::equal(few.begin(), few.end(), one.begin()));
    CHECK(one == run_quantized(2, rows));
    CHECK(one == run_quantized(3, rows));
    CHECK(one == run_quantized(1, rows, true) && one == run_quantized(2, rows, true));
  }
}

// 64 rows of few weights, then one of many, which a slice of few elements would stream for a row each.
TEST(slices_have_rows_enough_for_the_layers_that_hold_the_weights) {
  std::mt19937 rng(9);
  Program program(*available_tables().front());
  const auto value = [&](const std::vector<int64_t>& dims) { return program.value(DType::u8, dims); };
  const int x = value({-1, 64, 40}), h = value({-1, 64, 8}), wide = value({-1, 512}), y = value({-1, 50});
  const std::vector<float> ones(64, 1e-3f);
  const auto linear = [&](const char* name, int from, int to, int64_t n, int64_t k) {
    const Given given{{{"weight_scale", tensor(ones, {n})}},
                      {{"x_scale", 1.0}, {"x_zero_point", 0}, {"y_scale", 1.0}, {"y_zero_point", 0}, {"activation", "none"}}};
    program.step({"linear", name, {{"x", {from}}}, {{"y", {to}}}, given, {{random_weights(n, k, program.table(), rng), -1}}});
  };
  linear("few", x, h, 8, 40);
  program.step({"reshape", "r", {{"x", {h}}}, {{"y", {wide}}}, {{}, {{"shape", std::vector<int64_t>{0, -1}}}}});
  linear("many", wide, y, 50, 512);
  program.finish({x}, {y});
  const auto slicing = [&](int64_t batch) { return slice_batch(program, make_plan(program, {{batch}}, 2)->sizes); };
  CHECK(slicing(600).size >= 75 && slicing(600).count * slicing(600).size == 600);
}

TEST(a_batch_is_the_first_dimension_of_every_value) {
  const auto batched = [](const std::vector<int64_t>& from, const std::vector<int64_t>& to) {
    Program program(*available_tables().front());
    const int x = program.value(DType::f32, from), y = program.value(DType::f32, to);
    program.add_step({"any", {x}, {y}, [](const Sizes&) { return Work{}; }});
    program.finish({x}, {y});
    return has_batch(program);
  };
  CHECK(batched({-1, 4}, {-1, 2}) && batched({8, 4}, {8, 2, 2}) && batched({8, 8}, {8, 1}));
  CHECK(!batched({-1, -2}, {-2, 4}) && !batched({-1, 4}, {-1, -1}));
  CHECK(!batched({8, 4}, {4, 8}) && !batched({8}, {8}) && !batched({8, 4}, {8}));
}

// A shape that names the batch is that of the whole, not of a slice.
TEST(a_reshape_keeps_the_batch_of_a_slice) {
  constexpr int64_t kBatch = 300, kWidth = 12;
  auto program = std::make_shared<Program>(*available_tables().front());
  const int x = program->value(DType::f32, {kBatch, kWidth}), h = program->value(DType::f32, {kBatch, kWidth});
  const int y = program->value(DType::f32, {kBatch, 3, 4}), z = program->value(DType::f32, {kBatch, 3, 4});
  add_relu(*program, x, h);
  program->step({"reshape", "r", {{"x", {h}}}, {{"y", {y}}}, {{}, {{"shape", std::vector<int64_t>{kBatch, 3, 4}}}}});
  add_relu(*program, y, z);
  program->finish({x}, {z});
  CHECK(has_batch(*program) && slice_batch(*program, make_plan(*program, {}, 1)->sizes).count > 0);
  std::vector<float> values(kBatch * kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  for (const int threads : {1, 2}) {
    const auto out = Context(program, threads, 2).run({{DType::f32, {kBatch, kWidth}, values.data()}});
    CHECK(std::equal(values.begin(), values.end(), out[0].buffer.as<float>()));
  }
}

// -1 is the rest of the elements in the shape, and the first free dimension of x.
TEST(a_reshape_of_a_free_batch_may_make_another_one) {
  auto program = std::make_shared<Program>(*available_tables().front());
  const int x = program->value(DType::f32, {-1, 4}), y = program->value(DType::f32, {-2, 2});
  program->step({"reshape", "r", {{"x", {x}}}, {{"y", {y}}}, {{}, {{"shape", std::vector<int64_t>{-1, 2}}}}});
  program->finish({x}, {y});
  CHECK(!has_batch(*program));
  const std::vector<float> values(12, 1.5f);
  const auto out = Context(program, 1, 2).run({{DType::f32, {3, 4}, values.data()}});
  CHECK(out[0].dims == (std::vector<int64_t>{6, 2}));
}

namespace {

// A step that calls `run` with the address of its one input.
void add_reader(Program& program, const Read& read, int y, const std::function<void(const uint8_t*)>& run) {
  program.add_step({"reader", {read}, {y}, [read, run](const Sizes&) {
                      Work work;
                      work.units = 1;
                      work.run = [read, run](const Buffers& b, const Part&) { run(b.get<const uint8_t>(read.value)); };
                      return work;
                    }});
}

// What such a step is given for a caller's array of five 64-bit numbers that ends at a page which may not be touched.
struct Seen {
  const uint8_t *caller, *step;
  int64_t sum;  // of the numbers, and of what lies behind them for a step that reads on
};
Seen read_through(bool ahead, bool checked, int64_t shift) {
  auto program = std::make_shared<Program>(*available_tables().back());
  const int x = program->value(DType::i64, {5}), y = program->value(DType::f32, {1});
  Seen seen{};
  add_reader(*program, {x, ahead, checked}, y, [&](const uint8_t* p) {
    seen.step = p;
    for (int64_t i = 0; i < 40 + (ahead ? kReadAhead : 0); ++i) seen.sum += i < 40 && i % 8 == 0 ? p[i] : p[i] & 0;
  });
  program->finish({x}, {y});
  const std::vector<int64_t> numbers{1, 2, 3, 4, 5};
  const Guarded memory(numbers.data(), 40, static_cast<size_t>(shift));
  seen.caller = memory.data();
  Context(program, 1, 1).run({{DType::i64, {5}, memory.data()}});
  return seen;
}

}  // namespace

TEST(inputs_are_copied_where_a_step_reads_on_or_reads_what_it_checked) {
  const Seen plain = read_through(false, false, 0), ahead = read_through(true, false, 0);
  const Seen checked = read_through(false, true, 0), crooked = read_through(false, false, 4);
  CHECK(plain.step == plain.caller && plain.sum == 15);
  CHECK(ahead.step != ahead.caller && ahead.sum == 15);
  CHECK(checked.step != checked.caller && checked.sum == 15);
  CHECK(crooked.step != crooked.caller && crooked.sum == 15);
}

// A caller that writes to its ids after they were checked: the next step's check stands for it.
TEST(threads_read_what_was_checked) {
  constexpr int64_t kLength = 4, kWidth = 8;
  const std::vector<float> word(3 * kWidth, 1.0f), position(kLength * kWidth, 0.5f);
  for (const int64_t batch : {1, 300}) {
    std::vector<int64_t> ids(static_cast<size_t>(batch * kLength), 2);
    auto program = std::make_shared<Program>(*available_tables().front());
    const int x = program->value(DType::i64, {-1, kLength}), y = program->value(DType::f32, {-1, kLength, kWidth});
    const int other = program->value(DType::f32, {-1, kLength});
    const Given tables{{{"word", tensor(word, {3, kWidth})}, {"position", tensor(position, {kLength, kWidth})}}, {}};
    program->step({"embedding_sum", "embedding", {{"ids", {x}}}, {{"y", {y}}}, tables});
    program->add_step({"hostile", {x}, {other}, [&ids](const Sizes&) {
                         Work work;
                         work.run = [](const Buffers&, const Part&) {};
                         work.check = [&ids](const Buffers&) { std::fill(ids.begin(), ids.end(), int64_t{1} << 40); };
                         return work;
                       }});
    program->finish({x}, {y, other});
    Context context(program, 2, 2);
    const auto out = context.run({{DType::i64, {batch, kLength}, ids.data()}});
    const auto* found = out[0].buffer.as<float>();
    CHECK(ids[0] == int64_t{1} << 40);
    CHECK(std::all_of(found, found + batch * kLength * kWidth, [](float v) { return v == 1.5f; }));
    const auto again = test::refusal([&] { context.run({{DType::i64, {batch, kLength}, ids.data()}}); });
    CHECK_SAY(again.find("expected ids from 0 to 2") != std::string::npos, again);
  }
}

namespace {

// Products of floats of every type from caller's memory that ends at a page which may not be touched, one after the other: f32
// by f32, then f32 rounded to BF16. Rows enough for slices.
std::vector<float> run_floats(const KernelTable& table, Form form, int threads, int64_t rows) {
  std::mt19937 rng(11);
  std::uniform_real_distribution<float> real(-1.0f, 1.0f);
  std::vector<float> first(24 * 37), values(static_cast<size_t>(rows * 37));
  std::vector<uint16_t> second(20 * 24);
  for (auto& w : first) w = rng() % 2 ? real(rng) : 0.0f;
  for (auto& w : second) w = rng() % 2 ? 0x3f80 : 0;  // ones
  for (auto& v : values) v = real(rng);
  auto program = std::make_shared<Program>(table);
  const auto floats = [&](int64_t width) { return program->value(DType::f32, {-1, width}); };
  const int x = floats(37), h = floats(24), y = floats(20);
  const auto f32 = PackedWeights::pack({24, 37}, Type::f32, first.data(), form, table);
  const auto bf16 = PackedWeights::pack({20, 24}, Type::bf16, second.data(), form, table);
  program->step({"linear", "first", {{"x", {x}}}, {{"y", {h}}}, {{}, {{"activation", "relu"}}}, {{f32, -1}}});
  program->step({"linear", "second", {{"x", {h}}}, {{"y", {y}}}, {{}, {{"activation", "none"}}}, {{bf16, -1}}});
  program->finish({x}, {y});
  const Guarded gx(values.data(), values.size() * sizeof(float), 0);
  Context context(program, threads, 4);
  const auto out = context.run({{DType::f32, {rows, 37}, gx.data()}});
  const auto* data = out[0].buffer.as<float>();
  return {data, data + rows * 20};
}

}  // namespace

TEST(products_of_floats_are_read_to_their_end_and_threads_change_no_bit) {
  for (const KernelTable* table : available_tables())
    for (const Form form : {Form::dense, Form::window16, Form::blocks4}) {
      if (!table->kernel(Type::f32, form) || !table->kernel(Type::bf16, form)) continue;
      for (const int64_t rows : {1, 17, 130, 700}) {
        const auto one = run_floats(*table, form, 1, rows);
        CHECK_SAY(one == run_floats(*table, form, 3, rows), std::string(table->isa) + " " + form_info(form).name);
      }
    }
}

TEST(a_step_takes_what_it_reads_and_nothing_else) {
  Program program(*available_tables().back());
  const int x = program.value(DType::f32, {2}), y = program.value(DType::f32, {2});
  const auto refused = [&](const StepSpec& spec) { return test::refusal([&] { program.step(spec); }); };
  const auto relu = [&](const Given& given) { return refused({"relu", "r", {{"x", {x}}}, {{"y", {y}}}, given}); };
  const std::vector<float> numbers(2);
  CHECK(relu({{{"bias", tensor(numbers, {2})}}, {}}) ==
        "Step \"r\" (relu): expected no tensor bias, because nothing here reads it; leave it out.");
  CHECK(relu({{}, {{"alpha", 0.5}}}) == "Step \"r\" (relu): expected no attribute alpha, because nothing here reads it; leave it out.");
  CHECK(refused({"relu", "r", {{"x", {x}}, {"y", {x}}}, {{"y", {y}}}}) ==
        "Step \"r\" (relu): expected nothing as y, because no such slot is used here; leave it out.");
  CHECK(refused({"relu", "r", {{"x", {x, x}}}, {{"y", {y}}}}) == "Step \"r\" (relu): expected one value as x, found 2.");
  CHECK(refused({"relu", "r", {}, {{"y", {y}}}}) == "Step \"r\" (relu): expected an input x, found none.");
  CHECK(refused({"relu", "r", {{"x", {x}}}, {{"y", {y}}}, {}, {{nullptr, -1}}}) ==
        "Step \"r\" (relu): expected no packed weights, found 1.");
  const std::string unknown = refused({"rectify", "r", {}, {}});
  CHECK_SAY(unknown.starts_with("Step \"r\": expected an operator out of ") && unknown.ends_with(", found \"rectify\"."), unknown);
  CHECK(relu({}).empty() && program.steps().size() == 1);
}

TEST(attributes_are_of_their_kind_and_in_their_range) {
  Program program(*available_tables().back());
  const int x = program.value(DType::f32, {2}), y = program.value(DType::u8, {2});
  const auto refused = [&](const std::map<std::string, Attribute>& attributes) {
    return test::refusal([&] { program.step({"quantize", "q", {{"x", {x}}}, {{"y", {y}}}, {{}, attributes}}); });
  };
  const std::string place = "Step \"q\" (quantize): ";
  CHECK(refused({{"y_scale", 0.5}}) == place + "expected an integer as the attribute y_zero_point, found none.");
  CHECK(refused({{"y_scale", 0.5}, {"y_zero_point", 1.0}}) ==
        place + "expected an integer as the attribute y_zero_point, found a number.");
  CHECK(refused({{"y_scale", "1"}, {"y_zero_point", 1}}) == place + "expected a number as the attribute y_scale, found a text.");
  CHECK(refused({{"y_scale", 0.5}, {"y_zero_point", int64_t{1} << 40}}) ==
        place + "expected y_zero_point from 0 to 255, found 1099511627776.");
  CHECK(refused({{"y_scale", 1e-39}, {"y_zero_point", 1}}).starts_with(place + "expected y_scale to be a positive finite number"));
  CHECK(refused({{"y_scale", 1}, {"y_zero_point", 1}}).empty());
}

TEST(a_value_too_large_to_address_is_refused) {
  auto program = std::make_shared<Program>(*available_tables().back());
  const int x = program->value(DType::f32, {-1}), y = program->value(DType::f32, {-1});
  add_relu(*program, x, y);
  program->finish({x}, {y});
  std::string message;
  try {
    make_plan(*program, {{int64_t{1} << 41}}, 1);
  } catch (const std::invalid_argument& e) {
    message = e.what();
  }
  CHECK_SAY(message == "Expected at most 2^40 elements in a value, found value 0 of shape [2199023255552].", message);
}

}  // namespace openwork
