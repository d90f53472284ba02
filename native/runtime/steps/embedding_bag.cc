// Rows of tables as steps of a program: sums, means and maxima of bags of them, and the rows themselves.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

std::string number(int64_t n) { return std::to_string(n); }

// The kernel indexes the table without a look, so every id of a run is looked at first. That is possible where the ids are fed.
struct RowIds {
  int value;
  int64_t rows;                       // of their table
  int64_t width, first, count;        // of each `width` ids, `count` from `first` on are looked at

  // Which input of the program holds a value; fails for one that a step makes.
  static int64_t input_of(const Program& program, const Place& place, int value, const char* slot) {
    const auto& inputs = program.inputs();
    const auto at = std::find(inputs.begin(), inputs.end(), program.home(value)) - inputs.begin();
    place.expect(at < static_cast<int64_t>(inputs.size()),
                 "expected " + std::string(slot) + " that are an input of the program, found what a step makes.");
    return at;
  }

  void check(const Program& program, const Place& place, const int64_t* ids, int64_t all) const {
    const int64_t input = input_of(program, place, value, "ids");
    for (int64_t row = 0; row < all / width; ++row)
      for (int64_t i = row * width + first; i < row * width + first + count; ++i) {
        if (ids[i] >= 0 && ids[i] < rows) continue;
        place.fail("expected ids from 0 to " + number(rows - 1) + " in input " + number(input) + ", because its table has " +
                   number(rows) + " rows, found " + number(ids[i]) + " at [" + number(i / width) + ", " + number(i % width) + "].");
      }
  }
};

// Where bags begin among their ids.
struct BagOffsets {
  int value;
  bool last_given;

  void check(const Program& program, const Place& place, const int64_t* offsets, int64_t count, int64_t ids) const {
    const int64_t input = RowIds::input_of(program, place, value, "offsets");
    for (int64_t i = 0; i < count; ++i) {
      const int64_t low = i == 0 ? 0 : offsets[i - 1];
      if (offsets[i] >= low && offsets[i] <= ids) continue;
      place.fail("expected offsets that never fall, from 0 to the number of ids, " + number(ids) + ", in input " + number(input) +
                 ", found " + number(offsets[i]) + " at [" + number(i) + "]" +
                 (i == 0 ? "." : " behind " + number(offsets[i - 1]) + "."));
    }
  }
};

struct StoredTable {
  RowTable rows;
  int64_t count;
  Tensor data, scale, zero_point;  // kept alive
};

StoredTable table_of(const StepContext& c, int64_t width) {
  const Tensor table = c.tensor("table", {DType::f32, DType::u8});
  c.expect(table.shape.size() == 2 && table.shape[0] > 0 && table.shape[1] == width,
           "expected table of shape [rows, " + number(width) + "], found " + shape_text(table.shape) + ".");
  StoredTable stored{{table.data, width, nullptr, nullptr}, table.shape[0], table, {}, {}};
  if (table.dtype == DType::u8) {
    stored.scale = c.tensor("table_scale", {DType::f32}, {table.shape[0]});
    stored.zero_point = c.tensor("table_zero_point", {DType::u8}, {table.shape[0]});
    stored.rows.scale = stored.scale.get<float>();
    stored.rows.zero_point = stored.zero_point.get<uint8_t>();
  }
  return stored;
}

BagMode mode_of(const StepContext& c) {
  const std::string mode = c.text("mode");
  if (mode == "mean") return BagMode::mean;
  if (mode == "max") return BagMode::max;
  c.expect(mode == "sum", "expected the mode sum, mean or max, found \"" + mode + "\".");
  return BagMode::sum;
}

// What the shapes and attributes of a bag decide, and where its ids, offsets and weights are.
struct Bags {
  EmbeddingBagArgs args;
  RowIds ids;
  BagOffsets offsets;
  int weights, y;
};

Step bag_step(const StepContext& c, const Bags& bags, const StoredTable& table) {
  Step step{c.name(), {{bags.ids.value, false, true}, {bags.offsets.value, false, true}, {bags.weights, false, bags.offsets.value != kAbsent}},
            {bags.y}, [&program = c.program(), place = c.place(), bags, table](const Sizes& sizes) {
    EmbeddingBagArgs fixed = bags.args;
    const int64_t ids = sizes.elements(bags.ids.value);
    const int64_t offsets = bags.offsets.value == kAbsent ? 0 : sizes.elements(bags.offsets.value);
    fixed.bags = sizes.rows(bags.y);
    fixed.end = ids;
    fixed.y_stride = sizes.stride(bags.y);
    Work work = make_work(fixed.bags, even_chunk(fixed.bags, sizes.threads), program.table().embedding_bag, fixed,
                          [bags](EmbeddingBagArgs& a, const Buffers& b, int) {
                            a.ids = b.get<const int64_t>(bags.ids.value);
                            a.offsets = b.get<const int64_t>(bags.offsets.value);
                            a.weights = b.get<const float>(bags.weights);
                            a.y = b.get<float>(bags.y);
                          });
    work.check = [&program, place, bags, ids, offsets](const Buffers& b) {
      if (offsets > 0) bags.offsets.check(program, place, b.get<const int64_t>(bags.offsets.value), offsets, ids);
      bags.ids.check(program, place, b.get<const int64_t>(bags.ids.value), ids);
    };
    return work;
  }};
  step.strided = true;
  step.joins_batch = bags.offsets.value != kAbsent;
  return step;
}

// Bags of any length: ids [T] and where each begins.
void read_offsets(const StepContext& c, const Operand& ids, const Operand& offsets, Bags& bags) {
  ids.ranked(1, "[T]");
  offsets.ranked(1, "[B]");
  bags.ids.width = bags.ids.count = 1;
  bags.args.last_given = bags.offsets.last_given = c.flag("include_last");
}

// Bags of one length: columns of ids [B, W].
void read_columns(const StepContext& c, const Operand& ids, Bags& bags) {
  const int64_t width = ids.ranked(2, "[B, W]").width();
  const int64_t end = c.integer("end", width).within(1, width);
  bags.args.first = c.integer("begin", 0).within(0, end - 1);
  bags.args.count = end - bags.args.first;
  bags.args.stride = width;
  bags.ids.width = width;
  bags.ids.first = bags.args.first;
  bags.ids.count = bags.args.count;
}

}  // namespace

Step make_embedding_bag(const StepContext& c) {
  const Operand ids = c.input("ids", {DType::i64});
  const Operand offsets = c.optional_input("offsets", {DType::i64});
  const Operand weights = c.optional_input("weights", {DType::f32}).shaped(ids.dims());
  const Operand y = c.output("y", {DType::f32}).ranked(2, "[B, H]");
  const StoredTable table = table_of(c, y.width());
  Bags bags{{}, {ids.id, table.count, 1, 0, 1}, {offsets.id, false}, weights.id, y.id};
  bags.args.table = table.rows;
  bags.args.mode = mode_of(c);
  c.expect(!weights || bags.args.mode == BagMode::sum, "expected weights only where the mode is sum, found " + c.text("mode") + ".");
  if (offsets)
    read_offsets(c, ids, offsets, bags);
  else
    read_columns(c, ids, bags);
  Step step = bag_step(c, bags, table);
  if (!offsets) {
    y.shaped({ids.dims()[0], y.width()});
    return step;
  }
  if (!bags.args.last_given) {
    y.shaped({offsets.dims()[0], y.width()});
    return step;
  }
  step.shapes = [place = c.place(), width = y.width(), of = 1](const Shapes& reads) -> Shapes {
    place.expect(reads[of][0] > 1, "expected at least two offsets, because the last one ends the last bag, found one.");
    return {{reads[of][0] - 1, width}};
  };
  return step;
}

Step make_gather(const StepContext& c) {
  const Operand ids = c.input("ids", {DType::i64});
  const Operand y = c.output("y", {DType::f32});
  std::vector<int64_t> shape = ids.dims();
  shape.push_back(y.width());
  y.shaped(shape);
  const StoredTable table = table_of(c, y.width());
  Bags bags{{}, {ids.id, table.count, 1, 0, 1}, {kAbsent, false}, kAbsent, y.id};
  bags.args.table = table.rows;
  return bag_step(c, bags, table);
}

}  // namespace openwork
