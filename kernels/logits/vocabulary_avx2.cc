#include "kernels/logits/vocabulary_loops_text.h"

namespace invar {

const VocabularyLoops kVocabularyLoopsAvx2 = kTable;

}  // namespace invar
