// Programs of image steps in branches that are joined again, written in a few words.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/program.h"

namespace openwork::test {

inline constexpr int64_t kFree = -1, kHeight = 6, kWidth = 7, kChannels = 20;

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

  int image(int64_t width, DType type = DType::u8) {
    return program->value(type, {kFree, kHeight, kWidth, width});
  }
  int64_t channels(int v) const { return program->values()[static_cast<size_t>(v)].dims[3]; }
  DType dtype(int v) const { return program->values()[static_cast<size_t>(v)].dtype; }

  // Of kernel x kernel pixels, whose rows run together, or one by one.
  int conv(int from, int64_t n, int64_t kernel, DType made = DType::u8, int residual = kAbsent) {
    return product(from, {n, channels(from), kernel, kernel, 1, kernel > 1, false}, made, residual);
  }
  int conv_of_taps(int from, int64_t n, int64_t kernel) {
    return product(from, {n, channels(from), kernel, kernel, 1, false, false}, DType::u8, kAbsent);
  }
  int pool(const std::string& op, int from) {
    Given given = windows(3, 1);
    if (op == "average_pool") quantize(given, "x"), quantize(given, "y");
    return step({op, op, {{"x", {from}}}, {}, given}, channels(from));
  }
  int add(int a, int b) {
    Given given;
    if (dtype(a) == DType::u8)
      for (const char* name : {"a", "b", "y"}) quantize(given, name);
    return step({"add", "add", {{"a", {a}}, {"b", {b}}}, {}, given}, channels(a), dtype(a));
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
    return step({"concat", "concat", {{"x", pieces}}, {}, given}, width, dtype(pieces[0]));
  }

 private:
  int product(int from, const WeightShape& shape, DType made, int residual) {
    std::vector<int8_t> weight(static_cast<size_t>(shape.n * shape.k()));
    for (auto& w : weight) w = static_cast<int8_t>(static_cast<int>(rng_() % 255) - 127);
    Given given = windows(shape.kernel_h, 1);
    floats_.push_back(std::make_unique<std::vector<float>>(static_cast<size_t>(shape.n), 1e-4f));
    given.tensors["weight_scale"] = {DType::f32, floats_.back()->data(), {shape.n}, nullptr};
    given.attributes.insert({{"x_scale", 1.0}, {"x_zero_point", int64_t{90}}, {"groups", int64_t{1}}, {"activation", "relu"}});
    if (made == DType::u8) quantize(given, "y");
    if (residual != kAbsent && dtype(residual) == DType::u8) quantize(given, "residual");
    StepSpec spec{"conv", "conv", {{"x", {from}}}, {}, given,
                  {{PackedWeights::pack(shape, Type::i8, weight.data(), Form::dense, program->table()), -1}}};
    if (residual != kAbsent) spec.inputs["residual"] = {residual};
    return step(spec, shape.n, made);
  }
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
  int step(StepSpec spec, int64_t width, DType made = DType::u8) {
    const int y = image(width, made);
    spec.outputs["y"] = {y};
    program->step(spec);
    return y;
  }
};

}  // namespace openwork::test
