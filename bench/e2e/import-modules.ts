/** Times how long it takes to load modules in a process that has loaded nothing but others. */
import { answerImports } from './answer-imports.ts'

answerImports((name) => import(name))
