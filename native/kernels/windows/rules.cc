// The forms over windows: `dense`, which holds every weight, and the shuffled ones, which leave zeros out.
#include <algorithm>

#include "kernels/body.h"
#include "kernels/packer.h"
#include "kernels/windows/cuts.h"

namespace openwork::windows {
namespace {

// A window of 64 bytes that is not aligned lies in two cache lines: a step of them takes 2.2 times a dense one, aligned 1.5,
// where each channel has its own mask. Shared ones need fewer windows for as many products.
constexpr double kCrossing = 1.45, kCrossingShared = 1.1;
// A mask costs 0.4 of a strip's dot product on Zen 4 with one own mask a strip (2:4 in window8 takes 0.7 of dense).
constexpr double kMaskWork = 0.4;

// Elements of a run that the dense form reads for one group of a convolution.
int64_t dense_elements(const WeightShape& s) { return s.run_taps() > 1 ? s.run_elements() : s.channels; }

std::string refuse(const WeightShape& s, Type type, Form form, const KernelTable& table) {
  if (form_info(form).shuffled()) return "";
  const std::string name = form_info(form).name;
  const int64_t channels = table.group_channels(form);
  if (type == Type::bf16 && dense_elements(s) == 1)
    return "The form " + name + " reads BF16 by twos, and a run of these activations has one; use f32.";
  if (s.groups == 1) return "";
  if (s.run_taps() > 1) return "The form " + name + " does not run grouped convolutions with rows of taps together.";
  if (s.n / s.groups % channels == 0) return "";
  return "The form " + name + " makes " + std::to_string(channels) + " output channels at once on " + table.isa +
         ", which do not fit the " + std::to_string(s.n / s.groups) + " of each group; use a shuffled form.";
}

class DensePacking {
 public:
  explicit DensePacking(Packer& to) : to_(to), steps_((dense_elements(to.shape()) + to.slots() - 1) / to.slots()) {}

  void pack() {
    to_.allocate(to_.groups() * to_.shape().runs() * steps_, to_.group_channels() * 4);
    for (int64_t g = 0; g < to_.groups(); ++g) {
      to_.begin_group();
      for (int64_t run = 0; run < to_.shape().runs(); ++run) write_run(g * to_.group_channels(), run);
    }
    to_.begin_group();
  }

 private:
  void write_run(int64_t channel, int64_t run) {
    const int64_t start = to_.reader().base(channel);
    to_.begin_run();
    for (int64_t s = 0; s < steps_; ++s) {
      const int64_t at = begin_of(start, s);
      std::byte* step = to_.add_step(at * to_.element());
      for (int64_t c = 0; c < to_.group_channels(); ++c)
        for (int64_t i = start + s * to_.slots() - at; i < to_.slots(); ++i)
          to_.put(step + 4 * c + i * to_.element(), to_.reader().source(channel + c, run, at + i));
    }
    to_.end_run(steps_);
  }

  // Where a step begins. The last BF16 of an odd number is read with the one before it: what lies behind them might be no
  // number, and not even a weight of zero makes a number of that.
  int64_t begin_of(int64_t start, int64_t step) const {
    const int64_t within = step * to_.slots();
    return start + (to_.type() == Type::bf16 && within + 1 == dense_elements(to_.shape()) ? within - 1 : within);
  }

  Packer& to_;
  int64_t steps_;  // of a run
};

class ShuffledPacking {
 public:
  explicit ShuffledPacking(Packer& to)
      : to_(to), share_(to.info().share), masks_(to.group_channels() / kStripLanes / share_),
        index_bytes_(to.info().bits * 8) {}

  void pack() {
    const AllPositions all = all_positions();
    const WindowCut cut = cut_windows(all, {step_shape(), group_units(), kSpanChannels / share_});
    if (cut.ordered) set_order(cut.order);
    to_.allocate(cut.steps, masks_ * index_bytes_ + to_.group_channels() * 4);
    for (int64_t g = 0; g < to_.groups(); ++g) write_group(cut, all, g);
    to_.begin_group();
  }

 private:
  int64_t group_units() const { return to_.group_channels() / share_; }

  StepShape step_shape() const {
    const FormInfo& info = to_.info();
    const int reach = info.reach / static_cast<int>(to_.element());
    const double crossing = info.bits == 2 ? 0.0 : info.reach < 64 ? 1.0 : share_ > 1 ? kCrossingShared : kCrossing;
    return {reach, static_cast<int>(to_.slots()), reach, crossing, info.bits == 2};
  }

  AllPositions all_positions() const {
    AllPositions all(static_cast<size_t>(to_.shape().runs()));
    for (int64_t run = 0; run < to_.shape().runs(); ++run)
      for (int64_t channel = 0; channel < to_.channels(); channel += share_)
        all[static_cast<size_t>(run)].push_back(to_.reader().positions(channel, share_, run));
    return all;
  }

  void set_order(const std::vector<int64_t>& units) {
    std::vector<int32_t> order;
    for (const int64_t unit : units)
      for (int64_t c = 0; c < share_; ++c) order.push_back(static_cast<int32_t>((unit * share_ + c) % kSpanChannels));
    to_.set_order(std::move(order), kSpanChannels / to_.group_channels());
  }

  void write_group(const WindowCut& cut, const AllPositions& all, int64_t group) {
    to_.begin_group();
    const auto& runs = cut.groups[static_cast<size_t>(group)];
    for (size_t run = 0; run < runs.size(); ++run) {
      to_.begin_run();
      for (const WindowStep& step : runs[run]) {
        std::byte* to = to_.add_step(step.begin * to_.element());
        for (int64_t u = 0; u < group_units(); ++u) {
          const int64_t unit = cut.order[static_cast<size_t>(group * group_units() + u)];
          write_lane(to, u, step, all[run][static_cast<size_t>(unit)], unit, static_cast<int64_t>(run));
        }
      }
      to_.end_run(static_cast<int64_t>(runs[run].size()));
    }
  }

  // Lane u of a group stands in mask u / 16; its channels in the strips of that mask.
  void write_lane(std::byte* step, int64_t u, const WindowStep& cut, const Positions& positions, int64_t unit, int64_t run) {
    const int64_t bytes = to_.element(), mask = u / kStripLanes, lane = u % kStripLanes;
    const Take& take = cut.lanes[static_cast<size_t>(u)];
    std::byte* index = step + mask * index_bytes_;
    // A slot without a weight picks the window's first element: a whole one, and one of the run.
    for (int64_t b = 0; to_.info().bits == 8 && b < 4; ++b) put_index(index, lane * 4 + b, b % bytes);
    for (int64_t i = 0; i < take.count; ++i) {
      const int32_t at = positions[static_cast<size_t>(take.first + i)];
      const int64_t slot = to_.info().bits == 2 && i >= take.low ? to_.slots() / 2 + i - take.low : i;
      for (int64_t b = 0; b < bytes; ++b) put_index(index, lane * 4 + slot * bytes + b, (at - cut.begin) * bytes + b);
      for (int64_t c = 0; c < share_; ++c)
        to_.put(step + masks_ * index_bytes_ + 64 * (mask * share_ + c) + 4 * lane + slot * bytes,
                to_.reader().source(unit * share_ + c, run, at));
    }
  }

  // Field `field` of the form's bits.
  void put_index(std::byte* mask, int64_t field, int64_t index) const {
    const int64_t bits = to_.info().bits, per_byte = 8 / bits, most = (1 << bits) - 1, shift = field % per_byte * bits;
    std::byte& byte = mask[field / per_byte];
    byte = (byte & ~static_cast<std::byte>(most << shift)) | static_cast<std::byte>((index & most) << shift);
  }

  Packer& to_;
  int64_t share_, masks_, index_bytes_;  // masks: of a group
};

void pack(Packer& to) { to.info().shuffled() ? ShuffledPacking(to).pack() : DensePacking(to).pack(); }

double work(const PackedWeights& w) {
  const FormInfo info = form_info(w.form());
  const auto strips = static_cast<double>(w.table().group_strips[static_cast<int>(w.form())]);
  const double masks = info.shuffled() ? strips / info.share : 0.0;
  return static_cast<double>(w.steps()) * (strips + kMaskWork * masks);
}

int64_t scratch_bytes(const PackedWeights&) { return 0; }

}  // namespace

extern const BodyRules kRules = {refuse, pack, work, scratch_bytes};

}  // namespace openwork::windows
