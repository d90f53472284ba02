// Which weights the forms of a matrix unit hold, and how they are packed (cut.h).
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "kernels/body.h"
#include "kernels/nonzeros.h"
#include "kernels/packer.h"
#include "kernels/tiles/cut.h"

namespace openwork::tiles {
namespace {

// A tile of weights takes 16 cycles for 16 rows, and a dot product of a strip half a cycle: a step of a strip costs each row as
// much as two of them. What a row picks from a source is hidden behind products where there are enough of them, and a byte of the
// panel is copied: both are counted as half of the port's cycle that they take. Not fitted to any machine.
constexpr double kStepWork = 2.0, kSourceWork = 1.0, kLineWork = 2.0;

int64_t panel_bytes(const WeightShape& s, Type type) { return s.runs() * s.run_elements() * element_bytes(type); }

std::string refuse(const WeightShape& s, Type, Form form, const KernelTable&) {
  if (s.groups == 1 || form_info(form).share > 0) return "";
  return "The form " + std::string(form_info(form).name) + " multiplies all input channels, and these weights are in " +
         std::to_string(s.groups) + " groups; use a form that shares masks.";
}

// The places in the panel of the elements that a step multiplies, in order.
using StepPlaces = std::vector<int32_t>;

// Everything is written to a stream of its own first, and no weight is read twice for its size: a caller who changes the weights
// meanwhile must not make them more than there is memory for.
class TilePacking {
 public:
  explicit TilePacking(Packer& to)
      : to_(to), info_(to.info()), channels_(to.group_channels()), run_elements_(to.shape().run_elements()),
        line_(kLineBytes / to.element()), left_(to.reader(), 1, channels_), rows_(to.reader(), channels_) {}

  void pack() {
    for (int64_t group = 0; group < to_.groups(); ++group) {
      const std::vector<StepPlaces> steps = info_.share > 0 ? cut_kept(group) : cut_all();
      stream_.begins.push_back(std::ssize(stream_.bytes));
      stream_.steps.push_back(std::ssize(steps));
      if (info_.share > 0) write_gathers(steps);
      write_weights(group, steps);
    }
    // Behind the last compressed bytes a kernel reads on.
    stream_.bytes.resize(stream_.bytes.size() + (info_.few_rows() ? kLineBytes : 0));
    stream_.begins.push_back(std::ssize(stream_.bytes));
    to_.put(stream_);
  }

 private:
  std::vector<StepPlaces> cut_all() const {
    std::vector<StepPlaces> steps;
    for (int64_t at = 0; at < to_.shape().runs() * run_elements_; ++at) {
      if (at % line_ == 0) steps.emplace_back();
      steps.back().push_back(static_cast<int32_t>(at));
    }
    return steps;
  }
  // What the channels of a group keep: as many elements as a line has, out of as many lines as a step has sources.
  std::vector<StepPlaces> cut_kept(int64_t group) {
    std::vector<StepPlaces> steps;
    int64_t last = -1, sources = 0;
    each_kept(group, [&](int64_t at) {
      const bool other = at / line_ != last;
      if (steps.empty() || std::ssize(steps.back()) == line_ || (other && sources == kSources)) {
        steps.emplace_back();
        sources = 0;
      }
      sources += other || steps.back().empty();
      last = at / line_;
      steps.back().push_back(static_cast<int32_t>(at));
    });
    return steps;
  }
  // Calls f(place in the panel) for the elements that any channel of a group keeps, in order.
  template <class F>
  void each_kept(int64_t group, const F& f) {
    for (int64_t run = 0; run < to_.shape().runs(); ++run) {
      left_.restart();
      left_.add(0, group, run);
      for (int64_t w = left_.begin(); w < left_.end(); ++w)
        for (uint64_t bits = std::exchange(*left_.word(w), 0); bits; bits &= bits - 1)
          f(run * run_elements_ + w * 64 + std::countr_zero(bits));
    }
  }

  template <class T>
  void append(const T* from, size_t count) {
    const auto* bytes = reinterpret_cast<const std::byte*>(from);
    stream_.bytes.insert(stream_.bytes.end(), bytes, bytes + count * sizeof(T));
  }

  void write_gathers(const std::vector<StepPlaces>& steps) {
    for (const StepPlaces& step : steps) {
      Gather g{};
      for (size_t i = 0; i < step.size(); ++i) {
        const int64_t line = step[i] / line_, first = step[i] % line_ * to_.element();
        if (g.sources == 0 || g.line[g.sources - 1] != line) g.line[g.sources++] = static_cast<int32_t>(line);
        const int source = g.sources - 1;
        for (int64_t b = 0; b < to_.element(); ++b) {
          const size_t byte = i * static_cast<size_t>(to_.element()) + static_cast<size_t>(b);
          g.mask[source] |= uint64_t{1} << byte;
          g.index[source][byte] = static_cast<uint8_t>(first + b);
        }
      }
      append(&g, 1);
    }
  }

  void write_weights(int64_t group, const std::vector<StepPlaces>& steps) {
    std::vector<uint8_t> tiles(static_cast<size_t>(std::ssize(steps) * channels_ / kStripLanes * kTileBytes));
    int64_t read = -1;
    for (int64_t i = 0; i < std::ssize(steps); ++i)
      for (size_t j = 0; j < steps[static_cast<size_t>(i)].size(); ++j) {
        const int64_t place = steps[static_cast<size_t>(i)][j], run = place / run_elements_;
        for (int64_t c = 0; run != read && c < channels_; ++c) rows_.read(c, group * channels_ + c, run);
        read = run;
        write_column(tiles.data(), std::ssize(steps), i, static_cast<int64_t>(j), place % run_elements_);
      }
    info_.few_rows() ? compress(tiles) : append(tiles.data(), tiles.size());
  }
  // Element j of step i, of all channels: quads of each tile's 16 channels, and the tiles by pair of strips, step and strip.
  void write_column(uint8_t* tiles, int64_t steps, int64_t i, int64_t j, int64_t element) {
    const int64_t pair = pair_strips(info_) * kStripLanes, bytes = to_.element();
    const int64_t within = j / to_.slots() * kLineBytes + j % to_.slots() * bytes;
    for (int64_t c = 0; c < channels_; ++c) {
      const uint8_t* row = rows_.row(c);
      if (!row) continue;
      const int64_t tile = (c / pair * steps + i) * pair_strips(info_) + c % pair / kStripLanes;
      std::memcpy(tiles + tile * kTileBytes + within + c % kStripLanes * 4, row + element * bytes, static_cast<size_t>(bytes));
    }
  }

  // Masks of all tiles, then the bytes that are not zero, to whole lines.
  void compress(const std::vector<uint8_t>& tiles) {
    std::vector<uint64_t> masks(tiles.size() / kLineBytes);
    std::vector<uint8_t> kept;
    for (size_t i = 0; i < tiles.size(); ++i)
      if (tiles[i]) {
        masks[i / kLineBytes] |= uint64_t{1} << i % kLineBytes;
        kept.push_back(tiles[i]);
      }
    kept.resize((kept.size() + kLineBytes - 1) / kLineBytes * kLineBytes);
    append(masks.data(), masks.size());
    append(kept.data(), kept.size());
  }

  Packer& to_;
  FormInfo info_;
  int64_t channels_, run_elements_, line_;  // of a group, of a run, of a line
  NonZeros left_;
  RunRows rows_;
  PackedStream stream_;
};

void pack(Packer& to) { TilePacking(to).pack(); }

// Sources of all gathers.
int64_t sources(const PackedWeights& w) {
  const PackedView v = w.view();
  int64_t count = 0;
  for (int64_t group = 0; group < v.groups; ++group) {
    const auto* gathers = reinterpret_cast<const Gather*>(v.data + v.group_data[group]);
    for (int64_t i = 0; i < v.group_step[group + 1] - v.group_step[group]; ++i) count += gathers[i].sources;
  }
  return count;
}

double work(const PackedWeights& w) {
  const FormInfo info = form_info(w.form());
  const auto steps = static_cast<double>(w.steps() * group_strips(info));
  return kStepWork * steps + kLineWork * static_cast<double>(lines(panel_bytes(w.shape(), w.type()))) +
         (info.share > 0 ? kSourceWork * static_cast<double>(sources(w)) : 0.0);
}

int64_t scratch_bytes(const PackedWeights& w) {
  return scratch_of(form_info(w.form()), lines(panel_bytes(w.shape(), w.type()))).bytes;
}

}  // namespace

extern const BodyRules kRules = {refuse, pack, work, scratch_bytes};

}  // namespace openwork::tiles
