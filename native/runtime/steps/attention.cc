// Attention as a step of a program.
#include <cmath>

#include "runtime/buffer.h"
#include "runtime/steps/checks.h"

namespace openwork {

namespace {

struct AttentionShape {
  int64_t width, stride;
};

AttentionShape check_inputs(const StepChecks& check, const AttentionSpec& s, const Value& y) {
  const Value& q = check.value(s.q, "q", DType::f32);
  check.expect(q.dims.size() == 3, "expected q of shape [B, L, H] or [B, L, 3 H], found " + shape_text(q.dims) + ".");
  const int64_t width = check.width(y, "y");
  const bool packed = s.k == kAbsent && s.v == kAbsent;
  check.expect(packed || (s.k != kAbsent && s.v != kAbsent), "expected k and v together or neither.");
  const int64_t stride = packed ? 3 * width : width;
  check.same_shape(q, packed ? "q (holding q, k and v)" : "q", {q.dims[0], q.dims[1], stride});
  check.same_shape(y, "y", {q.dims[0], q.dims[1], width});
  if (!packed) {
    check.same_shape(check.value(s.k, "k", DType::f32), "k", q.dims);
    check.same_shape(check.value(s.v, "v", DType::f32), "v", q.dims);
  }
  if (s.mask != kAbsent) check.same_shape(check.value(s.mask, "mask", DType::i64), "mask", {q.dims[0], q.dims[1]});
  return {width, stride};
}

RoundTrip round_trip(const StepChecks& check, const std::optional<OutputQuantization>& rounding, const char* scale,
                     const char* zero_point) {
  if (!rounding) return {};
  check.quantization(*rounding, scale, zero_point);
  return {{1.0f / rounding->scale, rounding->zero_point}, rounding->scale};
}

// Each part packs the keys and values again, so there are no more than the threads need.
int64_t parts_for(int64_t pairs, int64_t length, int threads) {
  if (threads == 1 || pairs >= 2 * threads) return 1;
  const int64_t wanted = (2 * threads + pairs - 1) / pairs, most = strips_of(length);
  return wanted < most ? wanted : most;
}

}  // namespace

void Program::attention(const std::string& name, const AttentionSpec& s) {
  const StepChecks check(*this, name, "attention");
  const Value& y = check.value(s.y, "y", {DType::f32, DType::u8});
  const AttentionShape shape = check_inputs(check, s, y);
  check.expect(s.heads > 0 && shape.width % s.heads == 0, "expected heads to divide the width " + std::to_string(shape.width) +
                                                              ", found " + std::to_string(s.heads) + ".");
  check.expect(std::isfinite(s.scale), "expected a finite scale.");
  AttentionArgs fixed{};
  fixed.stride = shape.stride;
  fixed.heads = s.heads;
  fixed.size = shape.width / s.heads;
  fixed.scale = s.scale;
  fixed.quantized = y.dtype == DType::u8;
  fixed.quantizer = check.quantizer(y, s.quantization);
  fixed.score = round_trip(check, s.score, "score_scale", "score_zero_point");
  fixed.probability = round_trip(check, s.probability, "probability_scale", "probability_zero_point");

  add_step({name, {s.q, s.k, s.v, s.mask}, {s.y}, [this, s, fixed, width = shape.width](const Sizes& sizes) {
    const auto& dims = sizes.dims[s.q];
    AttentionArgs args = fixed;
    args.length = dims[1];
    const int64_t pairs = dims[0] * args.heads;
    args.parts = parts_for(pairs, args.length, sizes.threads);
    Work work = make_work(pairs * args.parts, 1, table_.attention, args, [s, width](AttentionArgs& a, const Buffers& b, int thread) {
      a.q = b.get<const float>(s.q);
      a.k = s.k == kAbsent ? a.q + width : b.get<const float>(s.k);
      a.v = s.v == kAbsent ? a.q + 2 * width : b.get<const float>(s.v);
      a.mask = b.get<const int64_t>(s.mask);
      a.y = b.get<void>(s.y);
      a.scratch = b.scratch_of<float>(thread);
    });
    work.scratch_bytes = padded_bytes(attention_scratch(args.length, args.size) * static_cast<int64_t>(sizeof(float)));
    return work;
  }});
}

}  // namespace openwork
