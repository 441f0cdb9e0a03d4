"""`dualtoken reconstruct`: pictures beside what is left of them after their pixel codes (paper Fig. 1, any files)."""

from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from data.images import ImageTransform, load_image, to_pil
from eval.reconstruction import from_pixel_values, psnr, ssim
from eval.sheets import contact_sheet
from tokenizer import DualTokenizer


def reconstruct(files: list[str], tokenizer_folder: str, out: str) -> list[Path]:
    """Writes `out/NAME.png`, original on the left, for each file, and prints its PSNR and SSIM. Returns the paths.

    All files are read before the first is reconstructed, so that a wrong one is known at once.
    """
    tokenizer = DualTokenizer.from_pretrained(tokenizer_folder)
    transform = ImageTransform(tokenizer.image_size, tokenizer.config.crop)
    originals = {file: transform(load_image(file)) for file in files}
    folder, paths = Path(out), list[Path]()
    folder.mkdir(parents=True, exist_ok=True)
    for file, pixel_values in tqdm(originals.items(), desc="reconstruct", unit="image", disable=len(files) < 20):
        original = pixel_values.unsqueeze(0)
        decoded = tokenizer.decode(tokenizer.encode(original).pixel)
        pair = from_pixel_values(original), from_pixel_values(decoded)
        paths.append(_free_path(folder, Path(file).stem, paths))
        _side_by_side(original[0], decoded[0]).save(paths[-1])
        print(f"{paths[-1]}  PSNR {psnr(*pair).item():.2f} dB  SSIM {ssim(*pair).item():.3f}")
    return paths


def _side_by_side(original: torch.Tensor, decoded: torch.Tensor) -> Image.Image:
    """float[3, h, w], twice, in [−1, 1]; small pictures are enlarged so that differences can be seen."""
    images = [to_pil(original), to_pil(decoded)]
    return contact_sheet(images, columns=2, scale=max(1, 256 // images[0].width))


def _free_path(folder: Path, stem: str, taken: list[Path]) -> Path:
    """`folder/stem.png`, numbered where two inputs share a name."""
    path, number = folder / f"{stem}.png", 2
    while path in taken:
        path, number = folder / f"{stem}-{number}.png", number + 1
    return path
