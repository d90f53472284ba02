// What is joined along its rows: each piece is written where it ends up, or copied there, and the bits are the same.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "test/guarded.h"
#include "test/harness.h"

namespace openwork {
namespace {

constexpr int64_t kFree = -1, kHeight = 6, kWidth = 7, kChannels = 20;

// Images of u8, and steps that make more of them; the memory of tensors ends with the object.
class Branches {
 public:
  explicit Branches(const KernelTable& table, unsigned seed)
      : program(std::make_shared<Program>(table)), rng_(seed), x(image(kChannels)) {}

  std::shared_ptr<Program> program;

 private:
  std::mt19937 rng_;
  std::vector<std::unique_ptr<std::vector<float>>> floats_;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> tables_;

 public:
  const int x;

  int image(int64_t channels, DType dtype = DType::u8) {
    return program->value(dtype, {kFree, kHeight, kWidth, channels});
  }
  int64_t channels(int v) const { return program->values()[static_cast<size_t>(v)].dims[3]; }

  // Of kernel x kernel pixels.
  int conv(int from, int64_t n, int64_t kernel, DType dtype = DType::u8, int residual = kAbsent) {
    const WeightShape shape{n, channels(from), kernel, kernel, 1, kernel > 1, false};
    std::vector<int8_t> weight(static_cast<size_t>(n * shape.k()));
    for (auto& w : weight) w = static_cast<int8_t>(static_cast<int>(rng_() % 255) - 127);
    Given given = windows(kernel, 1);
    floats_.push_back(std::make_unique<std::vector<float>>(static_cast<size_t>(n), 1e-4f));
    given.tensors["weight_scale"] = {DType::f32, floats_.back()->data(), {n}, nullptr};
    given.attributes.insert({{"x_scale", 1.0}, {"x_zero_point", int64_t{90}}, {"groups", int64_t{1}}, {"activation", "relu"}});
    if (dtype == DType::u8) quantize(given, "y");
    if (residual != kAbsent) quantize(given, "residual");
    const int y = image(n, dtype);
    StepSpec spec{"conv", "conv", {{"x", {from}}}, {{"y", {y}}}, given,
                  {{PackedWeights::pack(shape, Type::i8, weight.data(), Form::dense, program->table()), -1}}};
    if (residual != kAbsent) spec.inputs["residual"] = {residual};
    program->step(spec);
    return y;
  }
  int pool(const std::string& op, int from) {
    Given given = windows(3, 1);
    if (op == "average_pool") quantize(given, "x"), quantize(given, "y");
    return step({op, op, {{"x", {from}}}, {}, given}, channels(from));
  }
  int add(int a, int b) {
    Given given;
    for (const char* name : {"a", "b", "y"}) quantize(given, name);
    return step({"add", "add", {{"a", {a}}, {"b", {b}}}, {}, given}, channels(a));
  }
  int slice(int from, int64_t begin, int64_t end) {
    return step({"slice", "slice", {{"x", {from}}}, {}, {{}, {{"axis", int64_t{3}}, {"begin", begin}, {"end", end}}}}, end - begin);
  }
  int dequantize(int from) {
    Given given;
    quantize(given, "x");
    return step({"dequantize", "dequantize", {{"x", {from}}}, {}, given}, channels(from), DType::f32);
  }
  // `turned`: the pieces whose bytes go through a table.
  int concat(const std::vector<int>& pieces, const std::vector<size_t>& turned = {}) {
    int64_t width = 0;
    for (const int piece : pieces) width += channels(piece);
    Given given{{}, {{"axis", int64_t{3}}}};
    if (!turned.empty()) {
      auto& table = *tables_.emplace_back(std::make_unique<std::vector<uint8_t>>());
      for (size_t i = 0; i < pieces.size(); ++i)
        for (int byte = 0; byte < 256; ++byte)
          table.push_back(static_cast<uint8_t>(std::count(turned.begin(), turned.end(), i) ? 255 - byte : byte));
      given.tensors["tables"] = {DType::u8, table.data(), {static_cast<int64_t>(pieces.size()), 256}, nullptr};
    }
    const DType dtype = program->values()[static_cast<size_t>(pieces[0])].dtype;
    return step({"concat", "concat", {{"x", pieces}}, {}, given}, width, dtype);
  }

 private:
  static void quantize(Given& given, const std::string& name) {
    given.attributes.insert({{name + "_scale", 0.05}, {name + "_zero_point", int64_t{90}}});
  }
  static Given windows(int64_t kernel, int64_t stride) {
    const int64_t pad = kernel / 2;
    return {{},
            {{"kernel", std::vector<int64_t>{kernel, kernel}},
             {"strides", std::vector<int64_t>{stride, stride}},
             {"dilations", std::vector<int64_t>{1, 1}},
             {"pads", std::vector<int64_t>{pad, pad, pad, pad}}}};
  }
  int step(StepSpec spec, int64_t width, DType dtype = DType::u8) {
    const int y = image(width, dtype);
    spec.outputs["y"] = {y};
    program->step(spec);
    return y;
  }
};

// Makes the outputs of a program. The first is what is joined; the others are asked for as they are.
using Build = std::function<std::vector<int>(Branches&)>;

std::shared_ptr<const Program> build(const KernelTable& table, const Build& steps, bool all) {
  Branches branches(table, 3);
  std::vector<int> outputs = steps(branches);
  // An output lies where the caller has it, so that nothing lies inside of anything where every value is one.
  if (all)
    for (int v = 1; v < static_cast<int>(branches.program->values().size()); ++v)
      if (std::count(outputs.begin(), outputs.end(), v) == 0) outputs.push_back(v);
  branches.program->finish({branches.x}, outputs);
  return branches.program;
}

std::vector<uint8_t> random_images(int64_t batch) {
  std::mt19937 rng(17);
  std::vector<uint8_t> x(static_cast<size_t>(batch * kHeight * kWidth * kChannels));
  for (auto& byte : x) byte = static_cast<uint8_t>(rng());
  return x;
}

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> run(const std::shared_ptr<const Program>& program, int threads, int64_t batch, size_t outputs) {
  const Bytes x = random_images(batch);
  const Guarded guarded(x.data(), x.size(), 0);
  Context context(program, threads, 2);
  const auto made = context.run({{DType::u8, {batch, kHeight, kWidth, kChannels}, guarded.data()}});
  std::vector<Bytes> found;
  for (size_t i = 0; i < outputs; ++i) {
    const auto* data = made[i].buffer.as<uint8_t>();
    found.emplace_back(data, data + made[i].buffer.bytes());
  }
  return found;
}

// Each home's memory ends at a page which may not be touched, but for the bytes that steps read on.
std::vector<uint8_t> run_guarded(const Program& program, int64_t batch) {
  const auto plan = make_plan(program, {batch}, 1);
  const Bytes x = random_images(batch);
  std::vector<std::unique_ptr<Guarded>> memory;
  Buffers buffers;
  for (int v = 0; v < static_cast<int>(program.values().size()); ++v) {
    const int width = dtype_bytes(program.values()[static_cast<size_t>(v)].dtype);
    bool ahead = false;
    for (const Step& step : program.steps())
      for (const Read& read : step.reads) ahead = ahead || (read.ahead && program.home(read.value) == v);
    const auto bytes = static_cast<size_t>(plan->sizes.elements(v) * width);
    const size_t slack = ahead ? read_ahead(static_cast<size_t>(width)) : 0;
    memory.push_back(std::make_unique<Guarded>(v == program.inputs()[0] ? x.data() : nullptr, bytes, slack));
  }
  for (int v = 0; v < static_cast<int>(memory.size()); ++v) {
    const Home& home = program.home_of(v);
    buffers.values.push_back(memory[static_cast<size_t>(home.value)]->data() + home.offset);
  }
  const AlignedBuffer scratch(plan->scratch_stride);
  buffers.scratch = scratch.data();
  for (const Work& work : plan->work) work.run(buffers, {0, work.units, 0});
  const int y = program.outputs()[0];
  const auto* data = buffers.get<const uint8_t>(y);
  return {data, data + plan->sizes.elements(y) * dtype_bytes(program.values()[static_cast<size_t>(y)].dtype)};
}

// `inside`: values that lie inside of others.
void check(const std::string& what, int64_t inside, const Build& steps) {
  for (const KernelTable* table : available_tables()) {
    Branches counted(*table, 3);
    const size_t outputs = steps(counted).size();
    const auto joined = build(*table, steps, false), copied = build(*table, steps, true);
    const auto count = [](const Program& program) {
      int64_t found = 0;
      for (int v = 0; v < static_cast<int>(program.values().size()); ++v) found += program.home_of(v).stride > 0;
      return found;
    };
    CHECK_SAY(count(*joined) == inside && count(*copied) == 0, what + ": " + std::to_string(count(*joined)) + " inside");
    // 10 images make slices, and a rest on all threads.
    for (const int64_t batch : {1, 3, 10}) {
      const auto expected = run(copied, 1, batch, outputs);
      for (const int threads : {1, 2, 3})
        CHECK_SAY(run(joined, threads, batch, outputs) == expected,
                  what + " on " + table->isa + ", " + std::to_string(threads) + " threads, batch " + std::to_string(batch));
      CHECK_SAY(run_guarded(*joined, batch) == expected[0], what + " on " + table->isa + ", guarded, batch " + std::to_string(batch));
    }
  }
}

TEST(pieces_are_written_where_they_are_joined) {
  check("convolutions and pools", 5, [](Branches& b) {
    const int narrow = b.conv(b.x, 5, 1), wide = b.conv(b.x, 70, 3);
    return std::vector{b.concat({b.conv(wide, 33, 1), b.conv(narrow, 16, 3), b.pool("max_pool", b.x),
                                 b.pool("average_pool", b.x), b.conv(b.x, 3, 1, DType::u8, b.slice(b.x, 4, 7))})};
  });
  check("sums and slices", 3, [](Branches& b) {
    return std::vector{b.concat({b.add(b.x, b.conv(b.x, kChannels, 1)), b.slice(b.x, 3, 10), b.slice(b.x, 0, 1)})};
  });
  check("floats", 3, [](Branches& b) {
    return std::vector{b.concat({b.dequantize(b.x), b.conv(b.x, 9, 3, DType::f32), b.dequantize(b.conv(b.x, 4, 1))})};
  });
}

TEST(what_reads_the_whole_finds_every_piece) {
  check("a convolution behind", 2, [](Branches& b) {
    return std::vector{b.conv(b.concat({b.conv(b.x, 12, 1), b.conv(b.x, 21, 3)}), 18, 3)};
  });
}

TEST(pieces_of_pieces_lie_in_the_widest_rows) {
  check("one in the other", 5, [](Branches& b) {
    const int inner = b.concat({b.conv(b.x, 7, 1), b.conv(b.x, 11, 3)});
    return std::vector{b.concat({b.pool("max_pool", b.x), inner, b.conv(b.x, 2, 1)})};
  });
  // Each layer reads all before it: all of them lie in the last one's rows, and so do the shorter ones.
  check("a dense block", 7, [](Branches& b) {
    std::vector<int> all{b.pool("max_pool", b.x)};
    for (int i = 0; i < 3; ++i) {
      const int before = all.size() == 1 ? all[0] : b.concat(all);
      all.push_back(b.conv(b.conv(before, 24, 1), 9, 3));
    }
    return std::vector{b.pool("max_pool", b.concat(all)), b.conv(b.concat({all[1], all[2]}), 5, 1)};
  });
  check("a chain", 6, [](Branches& b) {
    int all = b.pool("max_pool", b.x);
    for (int i = 0; i < 3; ++i) all = b.concat({all, b.conv(b.conv(all, 24, 1), 9, 3)});
    return std::vector{b.pool("max_pool", all)};
  });
}

TEST(pieces_that_others_need_as_they_are_are_copied) {
  check("read by a convolution of rows of taps", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(piece, 8, 3)})};
  });
  check("read by a pool", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.pool("max_pool", piece)})};
  });
  check("an output", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(b.x, 8, 3)}), piece};
  });
  check("an input", 1, [](Branches& b) { return std::vector{b.concat({b.x, b.conv(b.x, 8, 3)})}; });
  check("through tables", 1, [](Branches& b) {
    return std::vector{b.concat({b.conv(b.x, 12, 1), b.conv(b.x, 8, 3), b.x}, {0, 2})};
  });
  check("twice", 2, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(b.x, 5, 1), piece})};
  });
  check("in two places", 3, [](Branches& b) {
    const int first = b.conv(b.x, 12, 1), second = b.conv(b.x, 5, 1), third = b.conv(b.x, 6, 1);
    return std::vector{b.concat({first, second, third}), b.concat({second, first})};
  });
}

// A product reads on behind the rows that it reads: what it writes must not lie there.
TEST(no_step_reads_on_into_what_it_writes) {
  check("one tap of a piece", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.conv(b.concat({piece, b.conv(piece, 8, 1)}), 5, 1)};
  });
  check("of an output, the next slice", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(b.x, 8, 1)}), b.conv(piece, 4, 1)};
  });
}

}  // namespace
}  // namespace openwork
