#include "kernels/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>

#include "kernels/body.h"
#include "kernels/packer.h"

namespace openwork {
namespace {

// 255 * 127 * k < 2^31: the INT32 sum is exact (docs/arithmetic.md).
constexpr int64_t kMaxReduction = 66000;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

void check_shape(const WeightShape& s, Type type) {
  if (s.n < 1 || s.channels < 1 || s.kernel_h < 1 || s.kernel_w < 1 || s.groups < 1 || s.n % s.groups != 0)
    refuse("Expected weights of at least 1 output channel, 1 input channel and 1 kernel tap, and as many output channels for "
           "each group, found " + std::to_string(s.n) + " output channels in " + std::to_string(s.groups) + " groups, " +
           std::to_string(s.channels) + " input channels and " + std::to_string(s.kernel_h) + " x " +
           std::to_string(s.kernel_w) + " taps.");
  if (type == Type::i8 && s.k() > kMaxReduction)
    refuse("Expected weights of 1 to " + std::to_string(kMaxReduction) + " input channels and taps for each output channel, "
           "found " + std::to_string(s.k()) + "; a longer reduction could overflow INT32.");
}

// -128 has no opposite in a byte, and AVX2 needs one (avx2.h, dot).
void check_bytes(const WeightShape& s, const int8_t* weight) {
  for (int64_t i = 0; i < s.n * s.k(); ++i)
    if (weight[i] == -128)
      refuse("Expected symmetric weights in [-127, 127], found -128 in output channel " + std::to_string(i / s.k()) +
             "; quantize the weights symmetrically.");
}

// A weight that is infinite or no number would spread over a tile.
void check_floats(const WeightShape& s, Type type, const void* weight) {
  const auto size = static_cast<size_t>(element_bytes(type));
  for (int64_t i = 0; i < s.n * s.k(); ++i) {
    float number = 0;
    std::memcpy(reinterpret_cast<char*>(&number) + sizeof number - size,
                static_cast<const char*>(weight) + static_cast<size_t>(i) * size, size);
    if (!std::isfinite(number))
      refuse("Expected finite weights, found " + std::to_string(number) + " in output channel " + std::to_string(i / s.k()) + ".");
  }
}

}  // namespace

const BodyRules& body_rules(Body body) {
  static constexpr const BodyRules* kAll[] = {
#define OPENWORK_BODY(name, rows) &name::kRules,
#include "kernels/bodies.inc"
#undef OPENWORK_BODY
  };
  return *kAll[static_cast<int>(body)];
}

std::string refusal(const WeightShape& shape, Type type, Form form, const KernelTable& table) {
  if (!table.kernel(type, form))
    return "The form " + std::string(form_info(form).name) + " is not on " + table.isa + " for " + type_name(type) + ".";
  return body_rules(form_info(form).body).refuse(shape, type, form, table);
}

Packer::Packer(PackedWeights& to, const void* weight)
    : to_(to), reader_(to.shape_, to.type_, weight), info_(form_info(to.form_)), bytes_(element_bytes(to.type_)) {}

void Packer::allocate(int64_t steps, int64_t step_bytes) {
  step_bytes_ = step_bytes;
  const auto size = static_cast<size_t>(std::max<int64_t>(64, steps * step_bytes));
  to_.data_.reset(static_cast<std::byte*>(::operator new[](size, std::align_val_t(64))));
  std::memset(to_.data_.get(), 0, size);
}

void Packer::begin_group() {
  to_.group_data_.push_back(to_.steps() * step_bytes_);
  to_.group_step_.push_back(to_.steps());
}

std::byte* Packer::add_step(int64_t offset) {
  std::byte* step = to_.data_.get() + to_.steps() * step_bytes_;
  to_.advance_.push_back(static_cast<int32_t>(offset - last_));
  last_ = offset;
  return step;
}

void Packer::end_run(int64_t steps) { to_.run_steps_.push_back(static_cast<int32_t>(steps)); }

void Packer::set_order(std::vector<int32_t> order, int64_t span) {
  to_.order_ = std::move(order);
  to_.span_ = span;
}

void Packer::put(std::byte* to, int64_t source) const {
  if (source >= 0) std::memcpy(to, reader_.at(source), static_cast<size_t>(bytes_));
}

void PackedWeights::Free::operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t(64)); }

PackedWeights::PackedWeights(const WeightShape& shape, Type type, Form form, const KernelTable& table)
    : shape_(shape), type_(type), form_(form), table_(table), groups_(divide_up(shape.n, table.group_channels(form))),
      column_sums_(static_cast<size_t>(channels()), 0) {}

std::shared_ptr<const PackedWeights> PackedWeights::pack(const WeightShape& shape, Type type, const void* weight, Form form,
                                                         const KernelTable& table) {
  check_shape(shape, type);
  if (const std::string reason = refusal(shape, type, form, table); !reason.empty()) refuse(reason);
  type == Type::i8 ? check_bytes(shape, static_cast<const int8_t*>(weight)) : check_floats(shape, type, weight);
  std::shared_ptr<PackedWeights> packed(new PackedWeights(shape, type, form, table));
  if (type == Type::i8) packed->add_columns(static_cast<const int8_t*>(weight));
  Packer packer(*packed, weight);
  body_rules(form_info(form).body).pack(packer);
  return packed;
}

void PackedWeights::add_columns(const int8_t* weight) {
  for (int64_t c = 0; c < shape_.n; ++c)
    for (int64_t i = 0; i < shape_.k(); ++i) column_sums_[static_cast<size_t>(c)] += weight[c * shape_.k() + i];
}

PackedView PackedWeights::view() const {
  return {reinterpret_cast<const uint8_t*>(data_.get()),
          group_data_.data(),
          group_step_.data(),
          run_steps_.data(),
          advance_.data(),
          order_.empty() ? nullptr : order_.data(),
          groups_,
          shape_.runs(),
          span_,
          shape_.run_elements() * element_bytes(type_),
          shape_.kernel_w};
}

int64_t PackedWeights::scratch_bytes() const { return body_rules(form_info(form_).body).scratch_bytes(*this); }
double PackedWeights::work() const { return body_rules(form_info(form_).body).work(*this); }

int64_t PackedWeights::natural(int64_t packed) const {
  const int64_t share = form_info(form_).shuffled() ? form_info(form_).share : 1, together = share * kStripLanes;
  const int64_t strip = packed % together / kStripLanes, lane = packed % kStripLanes;
  const int64_t stored = packed / together * together + lane * share + strip;
  if (order_.empty()) return stored;
  return stored / kSpanChannels * kSpanChannels + order_[static_cast<size_t>(stored)];
}

}  // namespace openwork
