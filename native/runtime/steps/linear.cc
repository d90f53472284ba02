// Linear layers as steps of a program.
#include "runtime/steps/products.h"

namespace openwork {

namespace {

// The first of the weights; all are those of one layer with k input channels.
const PackedWeights& check_weights(const StepContext& c, const std::vector<PackedTactic>& weights, int64_t k) {
  const PackedWeights& first = *weights[0].weights;
  for (const auto& [w, rows] : weights) {
    c.expect(w->shape().is_matrix(), "expected the weights of a matrix, found those of a convolution.");
    c.expect(w->type() == first.type(), "expected weights of one type, found " + std::string(type_name(first.type())) +
                                            " and " + type_name(w->type()) + ".");
    c.expect(w->n() == first.n() && w->k() == k,
             "expected weights of shape " + shape_text({first.n(), k}) + ", found " + shape_text({w->n(), w->k()}) + ".");
  }
  return first;
}

// Whether x is f32 and its rows must be rounded for these weights.
bool check_types(const StepContext& c, DType x, Type weights) {
  const DType own = weights == Type::i8 ? DType::u8 : weights == Type::bf16 ? DType::bf16 : DType::f32;
  const bool rounds = weights == Type::bf16 && x == DType::f32;
  const std::string also = weights == Type::bf16 ? " or f32" : "";
  c.expect(x == own || rounds, "expected x of type " + std::string(dtype_name(own)) + also + " for weights of " +
                                   type_name(weights) + ", found " + dtype_name(x) + ".");
  return rounds;
}

// Of a dynamic_linear: the scale and the zero point of x, which each run finds. What is made of the sums is float, since its scales
// are not known before.
Operand find_quantizer(const StepContext& c, Type weights, const Operand& y) {
  if (c.op() != "dynamic_linear") return {c, "x_quantizer", kAbsent, nullptr};
  const Operand found = c.input("x_quantizer", {DType::f32}).shaped({2});
  c.expect(weights == Type::i8, "expected weights of i8, found weights of " + std::string(type_name(weights)) + ".");
  c.expect(y.dtype() == DType::f32, "expected y of type f32, found " + std::string(dtype_name(y.dtype())) + ".");
  return found;
}

}  // namespace

Step make_linear(const StepContext& c) {
  const Operand x = c.input("x", {DType::u8, DType::bf16, DType::f32});
  const auto& weights = c.weights();
  const PackedWeights& first = check_weights(c, weights, x.width());
  const bool rounds = check_types(c, x.dtype(), first.type());
  std::vector<int64_t> shape = x.dims();
  shape.back() = first.n();
  const Operand y = c.output("y", kStoredDTypes).shaped(shape);
  const Operand residual = c.optional_input("residual", kStoredDTypes).shaped(shape);
  const Operand quantizer = find_quantizer(c, first.type(), y);
  const LinearEpilogue epilogue = make_epilogue(c, first, y, residual, bool{quantizer});
  const auto layers = std::make_shared<std::vector<LinearLayer>>();
  for (const auto& tactic : weights) layers->emplace_back(tactic.weights, epilogue, rounds);

  Step step{c.name(), {{x.id, !rounds}, residual.id, quantizer.id}, {y.id},
          [layers, limits = max_rows(weights), x = x.id, residual = residual.id, y = y.id, quantizer = quantizer.id](const Sizes& sizes) {
    const int64_t rows = sizes.rows(x);
    const LinearLayer* layer = &(*layers)[tactic_for(limits, rows)];
    const LinearPartition partition = layer->partition(rows, sizes.threads);
    Work work;
    work.units = partition.units();
    work.scratch_bytes = layer->scratch_bytes(partition.most_rows());
    work.run = [layers, layer, partition, x, residual, y, quantizer, stride = sizes.stride(y)](const Buffers& b, const Part& part) {
      const LinearBuffers buffers{b.get<const void>(x), b.get<const void>(residual), b.get<void>(y), stride,
                                  b.get<const float>(quantizer)};
      auto* scratch = b.scratch_of<std::byte>(part.thread);
      for (int64_t unit = part.begin; unit < part.end; ++unit) layer->run(buffers, partition.block(unit), scratch);
    };
    return work;
  }};
  step.weight_bytes = weights.back().weights->bytes();
  step.strided = true;
  step.apart = x.dims().size() > 2;
  step.in_place = {{residual.id, y.id}};
  return step;
}

}  // namespace openwork
