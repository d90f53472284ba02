#include "simd/avx512vnni.h"

#include "test/vocabulary.h"

namespace openwork::test {

extern const Vocabulary kAvx512VnniVocabulary = vocabulary_of<Avx512Vnni>();

}  // namespace openwork::test
