"""Train a teacher on long-tailed images, distil a student from it, report the accuracy of both per class group.

    python src/train.py                                           digits, a minute on a CPU
    python src/train.py dataset=cifar100_lt teacher=resnet32x4 student=resnet8x4 recipe=mdistiller
    python src/train.py method=kd method.temperature=2 seed=1     another method, another seed
    python src/train.py -m method=ce,kd,dkd,ltkd seed=0,1,2 dataset.imbalance_factor=10,100
    python src/train.py experiment=cifar100_lt_cpu method=kd      a preset
    python src/train.py --help                                    all choices; --cfg job shows what would run
    python src/train.py --list                                    methods, losses and networks, with costs and sizes

The same command again skips what is finished and resumes what is not.
"""

from ltkd.commands.train import main

if __name__ == "__main__":
    main()
