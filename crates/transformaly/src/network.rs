//! The frozen teacher, its students, and what they say of images.

use std::collections::HashMap;

use anomaly_core::Stream;
use candle_core::Tensor;
use vit_backbone::{Block, BlockContext, BlockDropout, Rope, TrainableBlock, Vit};

use crate::Error;
use crate::loss::{block_loss, image_errors};

/// One student block for each block of the teacher.
#[derive(Debug)]
pub(crate) struct Student {
    pub(crate) blocks: Vec<TrainableBlock>,
}

impl Student {
    /// Fresh weights: random, not a copy of the teacher's, although the reference calls its students "cloned".
    pub(crate) fn new(teacher: &Vit, stream: &mut Stream) -> Result<Self, Error> {
        let blocks = teacher.blocks().iter().map(|block| block.student(stream)).collect::<Result<_, _>>()?;
        Ok(Self { blocks })
    }

    /// The weights as they are now, in frozen blocks.
    pub(crate) fn frozen(&self) -> Result<Vec<Block>, Error> {
        Ok(self.blocks.iter().map(TrainableBlock::detached).collect::<Result<_, _>>()?)
    }

    /// Copies of the weights, `<block>.<name>`.
    pub(crate) fn named_tensors(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let mut all = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            all.extend(block.named_tensors()?.into_iter().map(|(name, t)| (format!("{index}.{name}"), t)));
        }
        Ok(all)
    }

    /// Sets the weights to those of [`Student::named_tensors`].
    pub(crate) fn load(&self, tensors: &HashMap<String, Tensor>) -> Result<(), Error> {
        for (index, block) in self.blocks.iter().enumerate() {
            block.load(&of_block(tensors, index))?;
        }
        Ok(())
    }
}

/// The tensors `<index>.<name>`, by name.
pub(crate) fn of_block(tensors: &HashMap<String, Tensor>, index: usize) -> HashMap<String, Tensor> {
    let prefix = format!("{index}.");
    tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone())))
        .collect()
}

/// What teacher and student make of the teacher's input to one block, `(B, N, D)` each.
pub(crate) struct Imitation {
    pub(crate) teacher: Tensor,
    /// With a graph to the student's weights, and to nothing else.
    pub(crate) student: Tensor,
}

impl Imitation {
    /// Runs a block and its student on `tokens` `(B, N, D)`, the teacher's input to it.
    pub(crate) fn new(
        teacher: &Block,
        student: &TrainableBlock,
        tokens: &Tensor,
        rope: Option<&Rope>,
        dropout: (Option<BlockDropout<'_>>, Option<BlockDropout<'_>>),
    ) -> Result<Self, Error> {
        let (of_teacher, of_student) = dropout;
        let context = |dropout| BlockContext { rope, dropout, ..BlockContext::default() };
        let (teacher, _) = teacher.forward(tokens, &mut context(of_teacher))?;
        let (student, _) = student.forward(tokens, &mut context(of_student))?;
        Ok(Self { teacher, student })
    }

    /// The mean squared difference, a scalar.
    pub(crate) fn loss(&self) -> Result<Tensor, Error> {
        block_loss(&self.student, &self.teacher)
    }
}

/// What a batch of B images looks like to teacher and student, in evaluation mode.
#[derive(Debug, Clone, Default)]
pub(crate) struct Descriptors {
    /// The pre-trained descriptor `z_p` of each image: the class token after the final norm, D numbers. For a backbone
    /// without class token, the mean of the patch tokens after it.
    pub(crate) pretrained: Vec<Vec<f64>>,
    /// The teacher-student descriptor `z_t` of each image: minus the mean squared difference, one number for each block.
    pub(crate) teacher_student: Vec<Vec<f64>>,
}

impl Descriptors {
    /// Of `images` `(B, 3, H, W)`, with `students` in place of the teacher's last blocks, as many as there are.
    pub(crate) fn of(teacher: &Vit, students: &[Block], images: &Tensor) -> Result<Self, Error> {
        let mut per_block = Vec::with_capacity(students.len());
        let tokens = walk(teacher, students, images, |student, teacher| {
            per_block.push(image_errors(student, teacher)?);
            Ok(())
        })?;
        let normed = teacher.norm(&tokens)?;
        let vectors = if teacher.config().class_token {
            normed.narrow(1, 0, 1)?.squeeze(1)?
        } else {
            let prefix = teacher.prefix_tokens();
            normed.narrow(1, prefix, normed.dim(1)? - prefix)?.mean(1)?
        };
        let pretrained = vectors
            .to_vec2::<f32>()?
            .into_iter()
            .map(|vector| vector.into_iter().map(f64::from).collect())
            .collect();
        let teacher_student = (0..images.dim(0)?)
            .map(|image| per_block.iter().map(|errors: &Vec<f64>| -errors[image]).collect())
            .collect();
        Ok(Self { pretrained, teacher_student })
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.pretrained.append(&mut other.pretrained);
        self.teacher_student.append(&mut other.teacher_student);
    }
}

/// The mean over all blocks of the mean squared differences, in evaluation mode.
pub(crate) fn evaluation_loss(teacher: &Vit, students: &[Block], images: &Tensor) -> Result<f64, Error> {
    let mut sum = 0.0;
    walk(teacher, students, images, |student, teacher| {
        sum += f64::from(block_loss(student, teacher)?.to_scalar::<f32>()?);
        Ok(())
    })?;
    Ok(sum / students.len() as f64)
}

/// Runs the teacher and, on its inputs to the last `students.len()` blocks, the students; `look` sees each student's
/// output and its teacher's. Returns the teacher's last tokens.
pub(crate) fn walk(
    teacher: &Vit,
    students: &[Block],
    images: &Tensor,
    mut look: impl FnMut(&Tensor, &Tensor) -> Result<(), Error>,
) -> Result<Tensor, Error> {
    let images = images.to_device(teacher.device())?;
    let (_, _, height, width) = images.dims4()?;
    let rope = teacher.rope(height, width)?;
    let context = || BlockContext { rope: rope.as_ref(), ..BlockContext::default() };
    let first = teacher.depth().saturating_sub(students.len());
    let mut tokens = teacher.embed(&images)?;
    for (index, block) in teacher.blocks().iter().enumerate() {
        let (after, _) = block.forward(&tokens, &mut context())?;
        if index >= first {
            let (student, _) = students[index - first].forward(&tokens, &mut context())?;
            look(&student, &after)?;
        }
        tokens = after;
    }
    Ok(tokens)
}
