#include "kernels/packing.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <numeric>
#include <stdexcept>

#include "kernels/body.h"
#include "kernels/huge_pages.h"
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
  const void* found = std::memchr(weight, 0x80, static_cast<size_t>(s.n * s.k()));
  if (found)
    refuse("Expected symmetric weights in [-127, 127], found -128 in output channel " +
           std::to_string((static_cast<const int8_t*>(found) - weight) / s.k()) + "; quantize the weights symmetrically.");
}

template <class Word>
[[noreturn]] void refuse_number(Word word, int64_t channel) {
  const uint32_t bits = uint32_t{word} << (32 - 8 * sizeof word);
  refuse("Expected finite weights, found " + std::to_string(std::bit_cast<float>(bits)) + " in output channel " +
         std::to_string(channel) + ".");
}

// A weight that is infinite or no number would spread over a tile. `exponent`: the bits that are all set in such a one.
template <class Word>
void check_floats(const WeightShape& s, const void* weight, Word exponent) {
  for (int64_t c = 0; c < s.n; ++c) {
    const char* row = static_cast<const char*>(weight) + static_cast<size_t>(c * s.k()) * sizeof(Word);
    for (int64_t i = 0; i < s.k(); ++i) {
      Word word;
      std::memcpy(&word, row + static_cast<size_t>(i) * sizeof word, sizeof word);
      if ((word & exponent) == exponent) refuse_number(word, c);
    }
  }
}

void check_numbers(const WeightShape& s, Type type, const void* weight) {
  if (type == Type::i8) return check_bytes(s, static_cast<const int8_t*>(weight));
  type == Type::bf16 ? check_floats<uint16_t>(s, weight, 0x7f80) : check_floats<uint32_t>(s, weight, 0x7f800000);
}

}  // namespace

const BodyRules& body_rules(Body body) {
  static constexpr const BodyRules* kAll[] = {
#define OPENWORK_BODY(name, rows, block) &name::kRules,
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
  to_.data_ = make_block(size);
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

void Packer::put(const PackedStream& stream) {
  allocate(std::ssize(stream.bytes), 1);
  std::copy(stream.bytes.begin(), stream.bytes.end(), to_.data_.get());  // of nothing too
  to_.group_data_ = stream.begins;
  to_.group_step_ = {0};
  for (const int64_t steps : stream.steps) to_.group_step_.push_back(to_.group_step_.back() + steps);
  to_.advance_.assign(static_cast<size_t>(to_.group_step_.back()), 0);
}

void Packer::set_order(std::vector<int32_t> order, int64_t span) {
  to_.order_ = std::move(order);
  to_.span_ = span;
}

PackedWeights::PackedWeights(const WeightShape& shape, Type type, Form form, const KernelTable& table)
    : shape_(shape), type_(type), form_(form), table_(table), groups_(divide_up(shape.n, table.group_channels(form))),
      column_sums_(static_cast<size_t>(channels()), 0) {}

std::shared_ptr<const PackedWeights> PackedWeights::pack(const WeightShape& shape, Type type, const void* weight, Form form,
                                                         const KernelTable& table) {
  check_shape(shape, type);
  if (const std::string reason = refusal(shape, type, form, table); !reason.empty()) refuse(reason);
  check_numbers(shape, type, weight);
  std::shared_ptr<PackedWeights> packed(new PackedWeights(shape, type, form, table));
  if (type == Type::i8) packed->add_columns(static_cast<const int8_t*>(weight));
  Packer packer(*packed, weight);
  body_rules(form_info(form).body).pack(packer);
  return packed;
}

void PackedWeights::add_columns(const int8_t* weight) {
  for (int64_t c = 0; c < shape_.n; ++c, weight += shape_.k())
    column_sums_[static_cast<size_t>(c)] = std::accumulate(weight, weight + shape_.k(), int32_t{0});
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
