#include "kernels/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>

#include "kernels/blocks.h"
#include "kernels/cuts.h"
#include "kernels/depthwise.h"
#include "kernels/weight_reader.h"

namespace openwork {
namespace {

// 255 * 127 * k < 2^31: the INT32 sum is exact (docs/arithmetic.md).
constexpr int64_t kMaxReduction = 66000;
// A window of 64 bytes that is not aligned lies in two cache lines: a step of them takes 2.2 times a dense one, aligned 1.5,
// where each channel has its own mask. Shared ones need fewer windows for as many products.
constexpr double kCrossing = 1.45, kCrossingShared = 1.1;

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

// Elements of a run that the dense form reads for one group of a convolution.
int64_t dense_elements(const WeightShape& s) { return s.run_taps() > 1 ? s.run_elements() : s.channels; }

std::string dense_refusal(const WeightShape& s, Type type, const std::string& name, const KernelTable& table, int64_t channels) {
  if (type == Type::bf16 && dense_elements(s) == 1)
    return "The form " + name + " reads BF16 by twos, and a run of these activations has one; use f32.";
  if (s.groups == 1) return "";
  if (s.run_taps() > 1) return "The form " + name + " does not run grouped convolutions with rows of taps together.";
  if (s.n / s.groups % channels == 0) return "";
  return "The form " + name + " makes " + std::to_string(channels) + " output channels at once on " + table.isa +
         ", which do not fit the " + std::to_string(s.n / s.groups) + " of each group; use a shuffled form.";
}

std::string depthwise_refusal(const WeightShape& s, const std::string& name) {
  if (s.channels == 1 && s.groups == s.n && s.run_taps() == 1) return "";
  return "The form " + name + " runs convolutions whose groups have one input and one output channel each, tap by tap; found " +
         std::to_string(s.n) + " output channels in " + std::to_string(s.groups) + " groups of " + std::to_string(s.channels) +
         " input channels" + (s.run_taps() > 1 ? ", with rows of taps together." : ".");
}

}  // namespace

std::string refusal(const WeightShape& s, Type type, Form form, const KernelTable& table) {
  const FormInfo& info = form_info(form);
  if (!table.kernel(type, form)) return "The form " + std::string(info.name) + " is not on " + table.isa + " for " + type_name(type) + ".";
  if (info.body == Body::depthwise) return depthwise_refusal(s, info.name);
  if (info.body == Body::blocks || info.shuffled()) return "";
  return dense_refusal(s, type, info.name, table, table.group_channels(form));
}

// One use: the weights, and the PackedWeights that they become.
class Packer {
 public:
  Packer(PackedWeights& to, const void* weight)
      : to_(to), shape_(to.shape_), weight_(weight), reader_(shape_, to.type_, weight), bytes_(element_bytes(to.type_)),
        info_(form_info(to.form_)), group_channels_(to.table_.group_channels(to.form_)),
        share_(std::max(1, info_.share)) {}

  void pack() {
    to_.type_ == Type::i8 ? add_columns() : check_numbers();
    if (info_.body == Body::blocks)
      blocks();
    else if (info_.body == Body::depthwise)
      depthwise();
    else if (info_.shuffled())
      shuffled();
    else
      dense();
  }

 private:
  int64_t masks() const { return info_.shuffled() ? group_channels_ / kStripLanes / share_ : 0; }
  int64_t index_bytes() const { return info_.bits * 8; }
  int64_t step_bytes() const {
    return masks() * index_bytes() + (info_.body == Body::blocks ? share_ : group_channels_) * 4;
  }
  int64_t slots() const { return 4 / bytes_; }

  void add_columns() {
    const auto* w = static_cast<const int8_t*>(weight_);
    for (int64_t c = 0; c < shape_.n; ++c)
      for (int64_t i = 0; i < shape_.k(); ++i) {
        // -128 has no opposite in a byte, and AVX2 needs one (avx2.h, dot).
        if (w[c * shape_.k() + i] == -128)
          refuse("Expected symmetric weights in [-127, 127], found -128 in output channel " + std::to_string(c) +
                 "; quantize the weights symmetrically.");
        to_.column_sums_[static_cast<size_t>(c)] += w[c * shape_.k() + i];
      }
  }

  // A weight that is infinite or no number would spread over a tile.
  void check_numbers() const {
    for (int64_t i = 0; i < shape_.n * shape_.k(); ++i) {
      float number = 0;
      std::memcpy(reinterpret_cast<char*>(&number) + sizeof number - static_cast<size_t>(bytes_), reader_.at(i), static_cast<size_t>(bytes_));
      if (!std::isfinite(number))
        refuse("Expected finite weights, found " + std::to_string(number) + " in output channel " + std::to_string(i / shape_.k()) + ".");
    }
  }

  // ---- dense
  void dense() {
    const int64_t steps = divide_up(dense_elements(shape_), slots());
    allocate(to_.groups_ * shape_.runs() * steps);
    for (int64_t g = 0; g < to_.groups_; ++g) {
      begin_group();
      const int64_t start = reader_.base(g * group_channels_);
      for (int64_t run = 0; run < shape_.runs(); ++run) {
        begin_run();
        for (int64_t s = 0; s < steps; ++s) {
          const int64_t at = dense_step(start, s);
          std::byte* step = add_step(at * bytes_);
          for (int64_t c = 0; c < group_channels_; ++c)
            for (int64_t i = start + s * slots() - at; i < slots(); ++i)
              put(step + 4 * c + i * bytes_, reader_.source(g * group_channels_ + c, run, at + i));
        }
        to_.run_steps_.push_back(static_cast<int32_t>(steps));
      }
    }
    end_groups();
  }

  // Where a step of the dense form begins. The last BF16 of an odd number is read with the one before it: what lies behind
  // them might be no number, and not even a weight of zero makes a number of that.
  int64_t dense_step(int64_t start, int64_t step) const {
    const int64_t within = step * slots();
    return start + (to_.type_ == Type::bf16 && within + 1 == dense_elements(shape_) ? within - 1 : within);
  }

  // ---- shuffled
  StepShape step_shape() const {
    const int reach = info_.reach / static_cast<int>(bytes_);
    const double crossing = info_.bits == 2 ? 0.0 : info_.reach < 64 ? 1.0 : share_ > 1 ? kCrossingShared : kCrossing;
    return {reach, static_cast<int>(slots()), reach, crossing, info_.bits == 2};
  }
  AllPositions all_positions() const {
    AllPositions all(static_cast<size_t>(shape_.runs()));
    for (int64_t run = 0; run < shape_.runs(); ++run)
      for (int64_t channel = 0; channel < to_.channels(); channel += share_)
        all[static_cast<size_t>(run)].push_back(reader_.positions(channel, share_, run));
    return all;
  }
  int64_t units() const { return to_.channels() / share_; }
  int64_t group_units() const { return group_channels_ / share_; }

  void shuffled() {
    const AllPositions all = all_positions();
    const WindowCut cut = cut_windows(all, {step_shape(), group_units(), kSpanChannels / share_});
    if (cut.ordered) set_order(cut.order);
    allocate(cut.steps);
    for (int64_t g = 0; g < to_.groups_; ++g) write_group(cut, all, g);
    end_groups();
  }
  void set_order(const std::vector<int64_t>& order) {
    to_.span_ = kSpanChannels / group_channels_;
    for (const int64_t unit : order)
      for (int64_t c = 0; c < share_; ++c) to_.order_.push_back(static_cast<int32_t>((unit * share_ + c) % kSpanChannels));
  }

  void write_group(const WindowCut& cut, const AllPositions& all, int64_t group) {
    begin_group();
    const auto& runs = cut.groups[static_cast<size_t>(group)];
    for (size_t run = 0; run < runs.size(); ++run) {
      begin_run();
      for (const WindowStep& step : runs[run]) {
        std::byte* to = add_step(step.begin * bytes_);
        for (int64_t u = 0; u < group_units(); ++u) {
          const int64_t unit = cut.order[static_cast<size_t>(group * group_units() + u)];
          write_lane(to, u, step, all[run][static_cast<size_t>(unit)], unit, static_cast<int64_t>(run));
        }
      }
      to_.run_steps_.push_back(static_cast<int32_t>(runs[run].size()));
    }
  }
  // Lane u of a group stands in mask u / 16; its channels in the strips of that mask.
  void write_lane(std::byte* step, int64_t u, const WindowStep& cut, const Positions& positions, int64_t unit, int64_t run) {
    const int64_t mask = u / kStripLanes, lane = u % kStripLanes;
    const Take& take = cut.lanes[static_cast<size_t>(u)];
    // A slot without a weight picks the window's first element: a whole one, and one of the run.
    for (int64_t b = 0; info_.bits == 8 && b < 4; ++b) put_index(step + mask * index_bytes(), lane * 4 + b, b % bytes_);
    for (int64_t i = 0; i < take.count; ++i) {
      const int32_t at = positions[static_cast<size_t>(take.first + i)];
      const int64_t slot = info_.bits == 2 && i >= take.low ? slots() / 2 + i - take.low : i;
      for (int64_t b = 0; b < bytes_; ++b)
        put_index(step + mask * index_bytes(), lane * 4 + slot * bytes_ + b, (at - cut.begin) * bytes_ + b);
      for (int64_t c = 0; c < share_; ++c)
        put(step + masks() * index_bytes() + 64 * (mask * share_ + c) + 4 * lane + slot * bytes_,
            reader_.source(unit * share_ + c, run, at));
    }
  }
  // Field `field` of `bits` bits.
  void put_index(std::byte* mask, int64_t field, int64_t index) {
    const int64_t per_byte = 8 / info_.bits, most = (1 << info_.bits) - 1, shift = field % per_byte * info_.bits;
    std::byte& byte = mask[field / per_byte];
    byte = (byte & ~static_cast<std::byte>(most << shift)) | static_cast<std::byte>((index & most) << shift);
  }
  void put(std::byte* to, int64_t source) {
    if (source >= 0) std::memcpy(to, reader_.at(source), static_cast<size_t>(bytes_));
  }

  // ---- rows in the lanes
  int64_t run_quads() const { return divide_up(shape_.run_elements(), slots()); }

  // The quads of all runs in which any channel of a block row has a weight: run * run_quads + place in the run.
  std::vector<int64_t> quads(int64_t channel) const {
    std::vector<int64_t> found;
    for (int64_t run = 0; run < shape_.runs(); ++run)
      for (const int32_t at : reader_.positions(channel, share_, run)) {
        const int64_t quad = run * run_quads() + at / slots();
        if (found.empty() || found.back() != quad) found.push_back(quad);
      }
    return found;
  }

  void blocks() {
    std::vector<std::vector<int64_t>> rows;
    int64_t steps = 0;
    for (int64_t unit = 0; unit < units(); ++unit) {
      rows.push_back(quads(unit * share_));
      steps += static_cast<int64_t>(rows.back().size());
    }
    allocate(steps);
    for (int64_t unit = 0; unit < units(); ++unit) {
      if (unit % group_units() == 0) begin_group();
      begin_run();
      const auto& row = rows[static_cast<size_t>(unit)];
      for (const int64_t quad : row) write_quad(unit * share_, quad);
      to_.run_steps_.push_back(static_cast<int32_t>(row.size()));
    }
    end_groups();
  }
  void write_quad(int64_t channel, int64_t quad) {
    std::byte* step = add_step(quad);
    for (int64_t c = 0; c < share_; ++c)
      for (int64_t i = 0; i < slots(); ++i)
        put(step + 4 * c + i * bytes_, reader_.source(channel + c, quad / run_quads(), quad % run_quads() * slots() + i));
  }

  // ---- depthwise
  void depthwise() {
    const DepthwiseSteps cut = depthwise_steps(to_.type_, shape_.kernel_w);
    allocate(to_.groups_ * shape_.kernel_h * cut.steps * cut.outputs);
    for (int64_t g = 0; g < to_.groups_; ++g) {
      begin_group();
      for (int64_t i = 0; i < shape_.kernel_h * cut.steps; ++i)
        for (int64_t o = 0; o < cut.outputs; ++o) write_taps(g * group_channels_, i / cut.steps, i % cut.steps * slots() - o);
    }
    end_groups();
  }
  // The taps from column `tap` of a kernel row on, of a group's channels.
  void write_taps(int64_t channel, int64_t row, int64_t tap) {
    std::byte* step = add_step(0);
    for (int64_t c = 0; c < group_channels_; ++c)
      for (int64_t i = 0; i < slots(); ++i)
        if (tap + i >= 0 && tap + i < shape_.kernel_w)
          put(step + 4 * c + i * bytes_, reader_.source(channel + c, row * shape_.kernel_w + tap + i, channel + c));
  }

  // ---- the stream
  void allocate(int64_t steps) {
    const auto size = static_cast<size_t>(std::max<int64_t>(64, steps * step_bytes()));
    to_.data_.reset(static_cast<std::byte*>(::operator new[](size, std::align_val_t(64))));
    std::memset(to_.data_.get(), 0, size);
  }
  void begin_group() {
    to_.group_data_.push_back(to_.steps() * step_bytes());
    to_.group_step_.push_back(to_.steps());
  }
  void end_groups() { begin_group(); }
  void begin_run() { last_ = 0; }
  // A step whose window begins at that byte of the run.
  std::byte* add_step(int64_t offset) {
    std::byte* step = to_.data_.get() + to_.steps() * step_bytes();
    to_.advance_.push_back(static_cast<int32_t>(offset - last_));
    last_ = offset;
    return step;
  }

  PackedWeights& to_;
  const WeightShape& shape_;
  const void* weight_;
  WeightReader reader_;
  int64_t bytes_;  // of an element
  const FormInfo& info_;
  int64_t group_channels_, share_;
  int64_t last_ = 0;  // where the window before began
};

void PackedWeights::Free::operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t(64)); }

PackedWeights::PackedWeights(const WeightShape& shape, Type type, Form form, const KernelTable& table)
    : shape_(shape), type_(type), form_(form), table_(table), groups_(divide_up(shape.n, table.group_channels(form))),
      column_sums_(static_cast<size_t>(channels()), 0) {}

std::shared_ptr<const PackedWeights> PackedWeights::pack(const WeightShape& shape, Type type, const void* weight, Form form,
                                                         const KernelTable& table) {
  check_shape(shape, type);
  if (const std::string reason = refusal(shape, type, form, table); !reason.empty()) refuse(reason);
  std::shared_ptr<PackedWeights> packed(new PackedWeights(shape, type, form, table));
  Packer(*packed, weight).pack();
  return packed;
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

int64_t PackedWeights::scratch_bytes() const {
  const FormInfo& info = form_info(form_);
  if (info.body != Body::blocks) return 0;
  return block_scratch_bytes(shape_.runs(), shape_.run_elements() * element_bytes(type_), info.share);
}

int64_t PackedWeights::natural(int64_t packed) const {
  const int64_t share = form_info(form_).shuffled() ? form_info(form_).share : 1, together = share * kStripLanes;
  const int64_t strip = packed % together / kStripLanes, lane = packed % kStripLanes;
  const int64_t stored = packed / together * together + lane * share + strip;
  if (order_.empty()) return stored;
  return stored / kSpanChannels * kSpanChannels + order_[static_cast<size_t>(stored)];
}

}  // namespace openwork
