// Linear layers as steps of a program.
#include "runtime/steps/products.h"

namespace openwork {

namespace {

// y and residual of a layer with n output channels on x.
void check_around(const StepChecks& check, const Value& x, const Value& y, const Value* residual, int64_t n) {
  std::vector<int64_t> shape = x.dims;
  shape.back() = n;
  check.same_shape(y, "y", shape);
  if (residual) check.same_shape(*residual, "residual", shape);
}

void check_weights(const StepChecks& check, const LinearSpec& s, const KernelTable& table, int64_t k) {
  check_tactics(check, s, table);
  const PackedWeights& first = *s.weights[0];
  for (const auto& w : s.weights) {
    check.expect(w->shape().is_matrix(), "expected the weights of a matrix, found those of a convolution.");
    check.expect(w->type() == first.type(), "expected weights of one type, found " + std::string(type_name(first.type())) +
                                                " and " + type_name(w->type()) + ".");
    check.expect(w->n() == first.n() && w->k() == k,
                 "expected weights of shape " + shape_text({first.n(), k}) + ", found " + shape_text({w->n(), w->k()}) + ".");
  }
}

// Whether x is f32 and its rows must be rounded for these weights.
bool check_types(const StepChecks& check, const Value& x, Type weights) {
  const DType own = weights == Type::i8 ? DType::u8 : weights == Type::bf16 ? DType::bf16 : DType::f32;
  const bool rounds = weights == Type::bf16 && x.dtype == DType::f32;
  const std::string also = weights == Type::bf16 ? " or f32" : "";
  check.expect(x.dtype == own || rounds, "expected x of type " + std::string(dtype_name(own)) + also + " for weights of " +
                                             type_name(weights) + ", found " + dtype_name(x.dtype) + ".");
  return rounds;
}

using Layers = std::vector<LinearLayer>;

}  // namespace

void Program::linear(const std::string& name, const LinearSpec& s) {
  const StepChecks check(*this, name, "linear");
  const Value& x = check.value(s.x, "x", {DType::u8, DType::bf16, DType::f32});
  const Value& y = check.value(s.y, "y", kStoredDTypes);
  check_weights(check, s, table_, check.width(x, "x"));
  const bool rounds = check_types(check, x, s.weights[0]->type());
  check_around(check, x, y, s.residual == kAbsent ? nullptr : &check.value(s.residual, "residual"), s.weights[0]->n());
  const LinearEpilogue epilogue = make_epilogue(check, s, y);
  auto layers = std::make_shared<Layers>();
  for (const auto& w : s.weights) layers->emplace_back(w, epilogue, rounds);

  add_step({name, {{s.x, !rounds}, s.residual}, {s.y}, [s, layers](const Sizes& sizes) {
    const int64_t rows = sizes.rows(s.x);
    const LinearLayer* layer = &(*layers)[tactic_for(s.max_rows, rows)];
    const LinearPartition partition = layer->partition(rows, sizes.threads);
    Work work;
    work.units = partition.units();
    work.scratch_bytes = layer->scratch_bytes(partition.most_rows());
    work.run = [s, layers, layer, partition](const Buffers& b, const Part& part) {
      const LinearBuffers buffers{b.get<const void>(s.x), b.get<const void>(s.residual), b.get<void>(s.y)};
      auto* scratch = b.scratch_of<std::byte>(part.thread);
      for (int64_t unit = part.begin; unit < part.end; ++unit) layer->run(buffers, partition.block(unit), scratch);
    };
    return work;
  }});
}

}  // namespace openwork
